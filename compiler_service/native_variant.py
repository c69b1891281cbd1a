"""Code generation for CPUs: a lowered module → a native library, its entry points, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compiler_service.codegen.llvm import (
    Machine,
    assembly,
    emit_module,
    llvm_version,
    object_code,
    optimize,
    stub_object,
)
from compiler_service.codegen.llvm_function import MARK_SYMBOL, FunctionText
from compiler_service.codegen.llvm_parallel import RUNTIME_SYMBOL
from compiler_service.entry_points import parameters_of
from compiler_service.entry_steps import EntrySteps
from compiler_service.linker import library_name, link, linker_version
from compiler_service.native_files import needed_libraries
from compiler_service.passes.workspace import workspace_plan
from compiler_service.runtime import runtime_object, support_objects, zig_version
from compiler_service.symbols import function_symbols, index_expr, symbol_names
from crossfarm._version import __version__
from crossfarm.compat.versions import NATIVE_ABI
from crossfarm.errors import BuildFailed
from crossfarm.wire.v1 import artifact_pb2

if TYPE_CHECKING:
    from compiler_service.kept_sources import KeptSources
    from crossfarm.ir.module import IRModule
    from crossfarm.target import Target

STEPS = ("codegen", "optimize", "emit", "link")
DEFAULT_OPT_LEVEL = 3
#: File of the runtime → what of it generated code calls: a library has the files that it uses.
RUNTIME = {"threads.c": RUNTIME_SYMBOL, "profile.c": MARK_SYMBOL}


@dataclass(frozen=True)
class NativeLibrary:
    """A library's bytes, and tool → version of what shaped them."""

    code: bytes
    toolchain: dict[str, str]


def build_native(
    lowered: IRModule,
    original: IRModule,
    written: IRModule,
    target: Target,
    step: Callable[[str], AbstractContextManager[None]],
    *,
    opt_level: int = DEFAULT_OPT_LEVEL,
    kept: KeptSources | None = None,
) -> tuple[artifact_pb2.Variant, NativeLibrary]:
    """The variant of a module lowered for a CPU, and its library.

    Args:
        written: the module before anything was scheduled.

    Raises:
        BuildFailed: something that the target cannot express, or a tool failed.
    """
    machine = Machine.of(target, opt_level)
    with step("codegen"):
        text, functions = emit_module(lowered, target, machine)
        entries = {name: text for name, text in functions.items() if not lowered.functions[name].private}
        if not entries:
            raise BuildFailed(f"module {original.name!r} has no public function to build")
    with step("optimize"):
        optimized = optimize(text, machine)
    with step("emit"):
        code = object_code(optimized, machine)
    arch, system = str(target.attributes["arch"]), str(target.attributes["os"])
    called = {symbol for f in functions.values() for symbol in f.declarations}
    runtime = [runtime_object(arch, system, file) for file, symbol in RUNTIME.items() if symbol in called]
    with step("link"):
        support = support_objects(arch, system)
        library = link(
            code,
            arch,
            system,
            library_name(system),
            lambda names: stub_object(names, machine),
            more=[*runtime, *support],
            exports=[f.symbol for f in entries.values()],
        )
    if kept is not None:
        kept.generated_native(text, str(optimized), assembly(optimized, machine))
    steps = EntrySteps(written)
    variant = artifact_pb2.Variant(
        target=target.to_proto(),
        requires=artifact_pb2.Requirements(
            arch=arch,
            os=system,
            cpu_features=sorted(target.enabled_features()),
            native_abi=NATIVE_ABI,
            libraries=needed_libraries(library),
        ),
        entry_points=[
            _entry_point(lowered, original, name, entries[name], steps) for name in lowered.functions if name in entries
        ],
        runtime="cpu",
    )
    toolchain = {"crossfarm": __version__, "llvm": llvm_version(), "linker": linker_version()}
    if runtime or support:
        toolchain["zig"] = zig_version()
    return variant, NativeLibrary(library, toolchain)


def _entry_point(
    lowered: IRModule, original: IRModule, name: str, text: FunctionText, steps: EntrySteps
) -> artifact_pb2.EntryPoint:
    func = lowered.prim_func(name)
    native = artifact_pb2.NativeEntry(
        symbol=text.symbol,
        workspace_bytes=index_expr(
            workspace_plan(func).size, function_symbols(func), f"the workspace of function {name!r}"
        ),
    )
    return artifact_pb2.EntryPoint(
        name=name,
        parameters=parameters_of(name, func, original),
        symbols=symbol_names(func),
        native=native,
        failures=text.failures,
        steps=steps.of(name, func),
    )
