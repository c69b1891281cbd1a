"""What schedules for GPUs are held against: the targets' limits, the verifier, traces, and the interpreter."""

from __future__ import annotations

import numpy as np

from compiler_service.codegen.kernel import Kernel
from compiler_service.passes.split_kernels import KERNEL_OF
from compiler_service.pipeline import run_pipeline
from compiler_service.schedules import choose_schedules
from crossfarm.ir import dtype as dt
from crossfarm.ir import interpreter
from crossfarm.ir.arith import const_int
from crossfarm.ir.module import IRModule
from crossfarm.target import Target
from tests.compiler.native import Array
from tests.compiler.tensor_programs import Program, assert_within, expected
from tests.compiler.test_default_schedules import assert_schedule_is_sound

USUAL = "opencl"
#: So small that tiles shrink to almost nothing.
TINY = "opencl max_threads_per_group=32 shared_bytes=4096"
ON_CPU = "opencl device_type=cpu compute_units=2 max_threads_per_group=4096 shared_bytes=1048576"
#: Its threads are lanes of vectors, where those of ON_CPU run one after the other.
LANES = "vulkan device_type=cpu compute_units=2 max_threads_per_group=1024 shared_bytes=32768"
GPUS = {"usual": USUAL, "tiny": TINY, "on a CPU": ON_CPU, "lanes of a CPU": LANES}


def rules_of(module: IRModule, target: str = USUAL) -> dict[str, str]:
    """The rule of each block, ``""`` for none."""
    return {b: c.rule for c in choose_schedules(module, Target(target).resolved()).choices for b in c.blocks}


def kernels_of(module: IRModule, target: str, schedule: str = "") -> list[Kernel]:
    """What the whole pipeline makes of a module; each kernel is within the target's limits."""
    resolved = Target(target).resolved()
    lowered, _ = run_pipeline(module, resolved, schedule=schedule)
    kernels = [Kernel.of(name, func) for name, func in lowered.functions.items() if KERNEL_OF in func.attrs]
    for kernel in kernels:
        assert kernel.threads_per_group <= resolved.attributes["max_threads_per_group"], kernel.group
        assert kernel.shared_bytes <= resolved.attributes["shared_bytes"], kernel.shared
    return kernels


def runs_on_several_threads(kernel: Kernel) -> bool:
    """Whether it has more than one thread, or a number of groups that only the call knows."""
    return kernel.threads_per_group > 1 or any(const_int(extent) != 1 for extent in kernel.grid)


def check(program: Program, target: str, *calls: dict[str, int], seed: int = 0) -> dict[str, str]:
    """Its schedule is sound, within the limits, and gives what numpy says; the rule of each block.

    Args:
        calls: sizes by name.
    """
    rules = assert_schedule_is_sound(program.module, target)
    kernels_of(program.module, target)
    scheduled = choose_schedules(program.module, Target(target).resolved()).module
    for number, sizes in enumerate(calls or ({},)):
        assert_right(program, scheduled, program.arguments(seed + number, **sizes))
    return rules


def assert_right(program: Program, module: IRModule, inputs: list[Array]) -> None:
    """The interpreter gives for ``module`` what numpy says of ``program``."""
    wanted = expected(program, inputs)
    found = [np.full(v.shape, 77, dt.to_numpy(t.dtype)) for (v, _), t in zip(wanted, program.outputs, strict=True)]
    interpreter.run(module, "main", [*inputs, *found])
    for got, (value, error), tensor in zip(found, wanted, program.outputs, strict=True):
        assert_within(got, value, error, tensor.name)
