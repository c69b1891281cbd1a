"""The rules' schedules, for functions that nobody scheduled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compiler_service.schedules import DEFAULT, choose_schedules
from crossfarm.ir.module import IRModule

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class ScheduleDefault:
    """Schedules each block by the first rule that fits it.

    It runs after the checks, so that errors speak of the program as it was written.

    Args:
        schedule: ``default``, ``none`` to leave every loop as it is written, or the name of the one rule to apply.
    """

    name: ClassVar[str] = "schedule_default"
    schedule: str = DEFAULT

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return choose_schedules(module, target, self.schedule).module
