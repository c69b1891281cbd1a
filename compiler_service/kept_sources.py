"""What a build keeps of its way where the options ask for it: texts by name, that become sections of the artifact.

A text is in an artifact, so it says nothing that changes from build to build (no times, no paths). The names are in
``crossfarm.artifact.sources``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from compiler_service.passes.schedule_default import ScheduleDefault
from compiler_service.schedules import DEFAULT, Schedules, choose_schedules
from crossfarm.artifact.sources import ASSEMBLY, LLVM, LLVM_OPTIMIZED, SCHEDULES, SCHEDULES_VERSION, step_file
from crossfarm.ir.module import IRModule

if TYPE_CHECKING:
    from crossfarm.target import Target


class KeptSources:
    """Collects the texts of one build.

    Attributes:
        texts: by name.
    """

    def __init__(self, module: IRModule, target: Target, schedule: str) -> None:
        """``schedule``: as in the build's options."""
        self.texts: dict[str, str] = {}
        self._module, self._target, self._schedule = module, target, schedule or DEFAULT
        self._steps = 0

    def after_pass(self, name: str, result: IRModule) -> None:
        """The module as a pass left it, and where rules chose schedules, what they chose and why."""
        if name == ScheduleDefault.name:
            # A pass gives a module and nothing more; the rules answer the same when they are asked again.
            chosen = choose_schedules(self._module, self._target, self._schedule)
            self.texts[SCHEDULES] = _schedules_text(chosen)
        self.texts[step_file(self._steps, name)] = result.script()
        self._module = result
        self._steps += 1

    def generated_native(self, llvm: str, optimized: str, assembly: str) -> None:
        """What code generation for a CPU made of it."""
        self.generated({LLVM: llvm, LLVM_OPTIMIZED: optimized, ASSEMBLY: assembly})

    def generated(self, texts: Mapping[str, str]) -> None:
        """What code generation made of it, by name."""
        self.texts |= texts


def _schedules_text(chosen: Schedules) -> str:
    choices = [
        {
            "function": choice.function,
            "block": choice.block,
            "blocks": list(choice.blocks),
            "rule": choice.rule,
            "reason": choice.reason,
            "refused": [list(refusal) for refusal in choice.refused],
        }
        for choice in chosen.choices
    ]
    traces = {
        name: {"python": trace.as_python(), "trace": json.loads(trace.to_json())}
        for name, trace in chosen.traces.items()
    }
    return json.dumps({"version": SCHEDULES_VERSION, "choices": choices, "traces": traces}, indent=1) + "\n"
