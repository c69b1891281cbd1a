"""Names of what a build keeps of its way with ``keep_sources``: sections of kind ``source``, for each variant.

| name | holds |
| --- | --- |
| ``00_NAME.py``, ``01_NAME.py``, … | the module after each step of the pipeline, as script text |
| ``schedules.json`` | which rule scheduled which block and why, and each function's trace |
| ``llvm.ll``, ``llvm-optimized.ll``, ``assembly.s`` | what code generation made of the last module |

``schedules.json`` is ``{"version": 1, "choices": [{"function", "block", "blocks", "rule", "reason", "refused": [[rule,
reason], …]}, …], "traces": {function: {"python": text, "trace": as ``Trace.to_json`` gives it}}}``.
"""

from __future__ import annotations

import re

SCHEDULES, LLVM, LLVM_OPTIMIZED, ASSEMBLY = "schedules.json", "llvm.ll", "llvm-optimized.ll", "assembly.s"
SCHEDULES_VERSION = 1

_STEP = re.compile(r"(\d{2,})_(\w+)\.py")


def step_file(number: int, name: str) -> str:
    """The section's name for the module after a step."""
    return f"{number:02}_{name}.py"


def step_of(file: str) -> tuple[int, str] | None:
    """Number and name of the step that a section shows, None for other sections."""
    match = _STEP.fullmatch(file)
    return (int(match[1]), match[2]) if match else None
