"""What a program's own status says: which of its checks refused the inputs."""

from __future__ import annotations

from collections.abc import Sequence

from crossfarm.errors import ProgramError


def refused(name: str, status: int, failures: Sequence[str]) -> ProgramError:
    """The error of a call of function ``name`` that ended with ``status``.

    Args:
        status: one more than the index of the check that failed, among ``failures``; another is named by its number.
        failures: what the checks of the program say, as the artifact lists them.
    """
    said = failures[status - 1] if 0 < status <= len(failures) else f"status {status}"
    return ProgramError(
        f"{name} failed on the device: {said}",
        hint="the program's own check refused these inputs",
        details={"function": name, "status": str(status)},
    )
