"""The compile pipeline: one readable list of named steps for each target kind."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from compiler_service.passes.base import Pass
from compiler_service.passes.bind_parallel import BindParallel
from compiler_service.passes.check_regions import CheckRegions
from compiler_service.passes.compact_parameters import CompactParameters
from compiler_service.passes.fetch_next import FetchNext
from compiler_service.passes.graph import LOWER_GRAPH_STEPS
from compiler_service.passes.graph.lower_graph import refuse_calls
from compiler_service.passes.hoist_conditions import HoistConditions
from compiler_service.passes.hoist_first_iteration import HoistFirstIteration
from compiler_service.passes.insert_barriers import InsertBarriers
from compiler_service.passes.lift_packing import LiftPacking
from compiler_service.passes.localize_buffers import LocalizeBuffers
from compiler_service.passes.lower_blocks import LowerBlocks
from compiler_service.passes.narrow_indices import NarrowIndices
from compiler_service.passes.partition_loops import PartitionLoops
from compiler_service.passes.place_functions import PlaceFunctions, is_placed
from compiler_service.passes.plan_workspace import PlanWorkspace
from compiler_service.passes.reduce_across_threads import ReduceAcrossThreads
from compiler_service.passes.refuse_thread_bindings import RefuseThreadBindings
from compiler_service.passes.report_failures import ReportFailures
from compiler_service.passes.scalarize_vectors import ScalarizeVectors
from compiler_service.passes.schedule_default import ScheduleDefault
from compiler_service.passes.serialize_races import SerializeRaces
from compiler_service.passes.simplify import Simplify
from compiler_service.passes.split_kernels import SplitKernels
from compiler_service.passes.unroll_loops import UnrollLoops
from compiler_service.passes.vectorize_loops import VectorizeLoops
from compiler_service.passes.workspace import DEVICE_ALIGN
from crossfarm.errors import UnsupportedTarget
from crossfarm.ir.module import IRModule

if TYPE_CHECKING:
    from crossfarm.target import Target

#: Called before a step with its name, its index and how many there are.
OnStep = Callable[[str, int, int], None]


def _kernels(*vectors: Pass) -> tuple[Pass, ...]:
    """For devices with thread groups, whatever their kernels are written in; ``vectors`` says what becomes of those."""
    return (
        CheckRegions(),
        CompactParameters(),
        ScheduleDefault(),
        ReduceAcrossThreads(),
        LowerBlocks(),
        Simplify(),
        BindParallel(),
        HoistFirstIteration(),
        LocalizeBuffers(),
        InsertBarriers(),
        ReportFailures(),
        SplitKernels(),
        Simplify(),
        NarrowIndices(),
        *vectors,
        Simplify(),
        PlanWorkspace(stack_bytes=-1, align=DEVICE_ALIGN),
    )


#: By kind, for modules of tensor programs; what goes before is in ``steps_for``.
PIPELINES: dict[str, tuple[Pass, ...]] = {
    "llvm": (
        RefuseThreadBindings(),
        CheckRegions(),
        CompactParameters(),
        ScheduleDefault(),
        LiftPacking(),
        LowerBlocks(),
        Simplify(),
        HoistFirstIteration(),
        HoistConditions(),
        LocalizeBuffers(),
        SerializeRaces(),
        PartitionLoops(),
        Simplify(),
        FetchNext(),
        UnrollLoops(),
        VectorizeLoops(),
        Simplify(),
        PlanWorkspace(),
    ),
    "cuda": _kernels(ScalarizeVectors()),
    "opencl": _kernels(VectorizeLoops(max_lanes=16), ScalarizeVectors(kept_lanes=(2, 3, 4, 8, 16))),
    "vulkan": _kernels(ScalarizeVectors()),
}


def pipeline_for(target: Target, schedule: str = "") -> tuple[Pass, ...]:
    """The passes for a target's kind.

    Args:
        schedule: as ScheduleDefault's; ``""`` for its default.

    Raises:
        UnsupportedTarget: there are none.
    """
    try:
        steps = PIPELINES[target.kind]
    except KeyError:
        raise UnsupportedTarget(f"this server has no pipeline for target kind {target.kind!r} yet") from None
    return tuple(replace(s, schedule=schedule) if schedule and isinstance(s, ScheduleDefault) else s for s in steps)


def steps_for(module: IRModule, target: Target, schedule: str = "") -> tuple[Pass, ...]:
    """What ``module`` goes through: ``PlaceFunctions`` where functions have targets of their own, the passes on graph
    functions where it has any, then those of ``pipeline_for``."""
    place = (PlaceFunctions(),) if is_placed(module) else ()
    graph = LOWER_GRAPH_STEPS if module.graph_functions else ()
    return (*place, *graph, *pipeline_for(target, schedule))


def run_pipeline(
    module: IRModule,
    target: Target,
    on_pass: Callable[[str, IRModule], None] = lambda name, module: None,
    on_step: Callable[[str], None] = lambda name: None,
    schedule: str = "",
) -> tuple[IRModule, list[tuple[str, float]]]:
    """Runs the target's passes; the lowered module and each pass' seconds.

    ``CROSSFARM_DEBUG=passes`` prints the module after each pass, ``CROSSFARM_DEBUG=verify`` verifies it; both with a
    comma.

    Args:
        on_step: called with each pass' name before it runs.
        on_pass: called with each pass' name and result.
        schedule: as ScheduleDefault's; ``""`` for its default.

    Raises:
        InvalidModule: a program that calls another one, as only lowered graph functions do; what a pass refuses.
        BuildFailed: no function is meant for the target, or what is calls what is not.
    """
    debug = frozenset(os.environ.get("CROSSFARM_DEBUG", "").split(","))
    times = []
    refuse_calls(module)
    for step in steps_for(module, target, schedule):
        on_step(step.name)
        started = time.perf_counter()
        module = step.apply(module, target)
        times.append((step.name, time.perf_counter() - started))
        if "passes" in debug:
            print(f"# after {step.name}\n{module.script()}", file=sys.stderr)
        if "verify" in debug:
            from crossfarm.ir.verify import verify

            verify(module)
        on_pass(step.name, module)
    return module, times
