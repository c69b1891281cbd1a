"""IRModule × Target → one variant of an artifact: its code, entry points, and what it needs of the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from compiler_service import kernel_variant, native_variant
from compiler_service.kept_sources import KeptSources
from compiler_service.passes.schedule_default import ScheduleDefault
from compiler_service.pipeline import OnStep, run_pipeline, steps_for
from crossfarm.errors import BuildFailed, UnsupportedTarget
from crossfarm.ir.module import IRModule
from crossfarm.ir.visitor import make_room
from crossfarm.target import Target
from crossfarm.wire.v1 import artifact_pb2, compiler_pb2


@dataclass(frozen=True)
class BuiltVariant:
    """What a build gives.

    Attributes:
        variant: the manifest's entry; ``library_section`` is for the artifact's assembler to set.
        code: the native library's bytes, or the kernels'.
        sources: name → text of what was generated on the way, where the options ask to keep it.
        toolchain: tool → version, of everything that shaped the bytes.
        steps: name and seconds of each step, in order.
    """

    variant: artifact_pb2.Variant
    code: bytes
    sources: dict[str, str] = field(default_factory=dict)
    toolchain: dict[str, str] = field(default_factory=dict)
    steps: list[tuple[str, float]] = field(default_factory=list)


def build_variant(
    module: IRModule,
    target: Target,
    options: compiler_pb2.BuildOptions,
    on_step: OnStep = lambda name, index, count: None,
) -> BuiltVariant:
    """Compiles ``module`` for one target (no multi-target).

    The module must be well-formed: the service verifies what arrives from outside. ``on_step`` is called with name,
    index and count before each step. The same arguments give the same bytes.

    Raises:
        UnsupportedTarget: no code generator for the target.
        InvalidModule: an access that is provably out of bounds.
        BuildFailed: something in the module that the target cannot express, or a tool failed.
    """
    reason = target.buildable_reason()
    if reason is not None:
        raise UnsupportedTarget(f"target {target}: {reason}")
    target = target.resolved()
    native = target.kind == "llvm"
    names = [*(p.name for p in steps_for(module, target)), *(native_variant if native else kernel_variant).STEPS]
    steps: list[tuple[str, float]] = []
    kept = KeptSources(module, target, options.schedule) if options.keep_sources else None

    position = count()

    def announce(name: str) -> None:
        on_step(name, next(position), len(names))

    written = before = module

    def keep_module(name: str, result: IRModule) -> None:
        nonlocal written, before
        if name == ScheduleDefault.name:
            written = before
        before = result
        if kept is not None:
            kept.after_pass(name, result)

    make_room()
    lowered, pass_times = run_pipeline(module, target, keep_module, announce, options.schedule)
    steps.extend(pass_times)

    @contextmanager
    def step(name: str) -> Iterator[None]:
        announce(name)
        started = time.perf_counter()
        yield
        steps.append((name, time.perf_counter() - started))

    opt_level = options.opt_level if options.opt_level_set or options.opt_level else native_variant.DEFAULT_OPT_LEVEL
    if opt_level > 3:
        raise BuildFailed(f"there is no optimization level {opt_level}; the levels are 0 to 3")
    if native:
        variant, library = native_variant.build_native(
            lowered, module, written, target, step, opt_level=opt_level, kept=kept
        )
        code, toolchain = library.code, library.toolchain
    else:
        variant, device = kernel_variant.build_kernels(lowered, module, written, target, step)
        if kept is not None:
            kept.generated(device.sources)
        code, toolchain = device.code, kernel_variant.toolchain(device)
    return BuiltVariant(variant, code, kept.texts if kept is not None else {}, toolchain, steps)
