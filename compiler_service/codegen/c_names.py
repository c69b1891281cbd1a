"""Names of a program as identifiers of C-like languages."""

from __future__ import annotations

from typing import Any


class Names:
    """Gives each thing one identifier of its own: its name, with what C does not allow replaced."""

    def __init__(self, reserved: frozenset[str]) -> None:
        self._taken = set(reserved)
        self._given: dict[Any, str] = {}

    def of(self, thing: Any) -> str:
        """The identifier of a Var or Buffer."""
        known = self._given.get(thing)
        if known is None:
            known = self.fresh(thing.name)
            self._given[thing] = known
        return known

    def fresh(self, name: str) -> str:
        """A new identifier like ``name``."""
        base = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name) or "v"
        if base[0].isdigit() or base.startswith(("cf_", "__")):
            base = f"v_{base}"
        candidate, number = base, 1
        while candidate in self._taken:
            candidate, number = f"{base}_{number}", number + 1
        self._taken.add(candidate)
        return candidate
