"""IRModule × Target → one variant of an artifact: native library, entry points, and what it needs of the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from compiler_service.codegen.llvm import (
    Machine,
    assembly,
    emit_module,
    llvm_version,
    object_code,
    optimize,
    stub_object,
)
from compiler_service.codegen.llvm_function import FunctionText
from compiler_service.codegen.llvm_parallel import RUNTIME_SYMBOL
from compiler_service.kept_sources import KeptSources
from compiler_service.linker import link, linker_version, needed_libraries
from compiler_service.passes.plan_workspace import workspace_plan
from compiler_service.pipeline import OnStep, pipeline_for, run_pipeline
from compiler_service.roles import parameter_roles
from compiler_service.runtime import runtime_object, zig_version
from compiler_service.symbols import function_symbols, index_expr, symbol_names
from crossfarm._version import __version__
from crossfarm.compat.versions import NATIVE_ABI
from crossfarm.errors import BuildFailed, UnsupportedTarget
from crossfarm.ir.expr import Var
from crossfarm.ir.function import Param
from crossfarm.ir.module import IRModule
from crossfarm.ir.visitor import make_room
from crossfarm.target import Target
from crossfarm.wire.v1 import artifact_pb2, compiler_pb2

DEFAULT_OPT_LEVEL = 3


@dataclass(frozen=True)
class BuiltVariant:
    """What a build gives.

    Attributes:
        variant: the manifest's entry; ``library_section`` is for the artifact's assembler to set.
        library: the native library's bytes.
        sources: name → text of what was generated on the way, where the options ask to keep it.
        toolchain: tool → version, of everything that shaped the bytes.
        steps: name and seconds of each step, in order.
    """

    variant: artifact_pb2.Variant
    library: bytes
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
    names = [*(p.name for p in pipeline_for(target)), "codegen", "optimize", "emit", "link"]
    steps: list[tuple[str, float]] = []
    kept = KeptSources(module, target, options.schedule) if options.keep_sources else None

    position = count()

    def announce(name: str) -> None:
        on_step(name, next(position), len(names))

    def keep_module(name: str, result: IRModule) -> None:
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

    opt_level = options.opt_level if options.opt_level_set or options.opt_level else DEFAULT_OPT_LEVEL
    if opt_level > 3:
        raise BuildFailed(f"there is no optimization level {opt_level}; the levels are 0 to 3")
    machine = Machine.of(target, opt_level)
    with step("codegen"):
        text, functions = emit_module(lowered, target, machine)
        if not functions:
            raise BuildFailed(f"module {module.name!r} has no public function to build")
    with step("optimize"):
        optimized = optimize(text, machine)
    with step("emit"):
        code = object_code(optimized, machine)
    arch, system = str(target.attributes["arch"]), str(target.attributes["os"])
    threaded = any(RUNTIME_SYMBOL in f.declarations for f in functions.values())
    with step("link"):
        more = [runtime_object(arch, system)] if threaded else []
        library = link(
            code, arch, system, "libcrossfarm-program.so", lambda names: stub_object(names, machine), more=more
        )
    if kept is not None:
        kept.generated(text, str(optimized), assembly(optimized, machine))
    variant = artifact_pb2.Variant(
        target=target.to_proto(),
        requires=artifact_pb2.Requirements(
            arch=arch,
            os=system,
            cpu_features=sorted(target.enabled_features()),
            native_abi=NATIVE_ABI,
            libraries=needed_libraries(library),
        ),
        entry_points=[_entry_point(lowered, module, name, text) for name, text in functions.items()],
        runtime="cpu",
    )
    toolchain = {"crossfarm": __version__, "llvm": llvm_version(), "linker": linker_version()}
    if threaded:
        toolchain["zig"] = zig_version()
    return BuiltVariant(variant, library, kept.texts if kept is not None else {}, toolchain, steps)


def _entry_point(lowered: IRModule, original: IRModule, name: str, text: FunctionText) -> artifact_pb2.EntryPoint:
    func = lowered[name]
    symbols = function_symbols(func)
    parameters = [_parameter(name, param, symbols) for param in func.params]
    for parameter, role in zip(parameters, parameter_roles(original[name])):
        parameter.role = role
    native = artifact_pb2.NativeEntry(
        symbol=text.symbol,
        workspace_bytes=index_expr(workspace_plan(func).size, symbols, f"the workspace of function {name!r}"),
    )
    return artifact_pb2.EntryPoint(
        name=name, parameters=parameters, symbols=symbol_names(func), native=native, failures=text.failures
    )


def _parameter(function: str, param: Param, symbols: tuple[Var, ...]) -> artifact_pb2.Parameter:
    if isinstance(param, Var):
        return artifact_pb2.Parameter(name=param.name, kind=artifact_pb2.Parameter.SCALAR, dtype=param.dtype)
    what = f"the shape of parameter {param.name!r} of function {function!r}"
    return artifact_pb2.Parameter(
        name=param.name,
        kind=artifact_pb2.Parameter.BUFFER,
        dtype=param.dtype,
        shape=[index_expr(extent, symbols, what) for extent in param.shape],
        strides=[index_expr(stride, symbols, what) for stride in param.strides],
    )
