"""Names that are free."""

from __future__ import annotations

from collections.abc import Container


def free_name(wish: str, taken: Container[str]) -> str:
    """``wish``, or ``wish_1``, ``wish_2``, …: the first that is not in ``taken``, which stays as it is."""
    name, number = wish, 0
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    return name
