"""Code generation for devices with thread groups: a lowered module → kernels, their launch plans, what they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compiler_service.codegen import cuda_c, opencl_c, ptx, spirv, spirv_text
from compiler_service.codegen.kernel import Kernel
from compiler_service.codegen.llvm import llvm_version
from compiler_service.entry_points import parameters_of
from compiler_service.entry_steps import EntrySteps
from compiler_service.launch_plan import kernel_message, plan_launches
from compiler_service.passes.split_kernels import KERNEL_OF
from compiler_service.symbols import symbol_names
from crossfarm._version import __version__
from crossfarm.errors import BuildFailed, UnsupportedTarget
from crossfarm.ir.calls import callees_of
from crossfarm.wire.v1 import artifact_pb2

if TYPE_CHECKING:
    from crossfarm.ir.module import IRModule
    from crossfarm.target import Target

STEPS = ("codegen",)


@dataclass(frozen=True)
class DeviceCode:
    """What a language's generator gives.

    Attributes:
        code: for the driver.
        sources: readable texts of it, by name.
        features: names of ``crossfarm.target.features`` that the device must have.
        version: the least version of the driver's API or of the instruction set that it must have.
        toolchain: tool → version, of what shaped the bytes.
        shared_bytes: by kernel, where its code needs more than ``Kernel.shared_bytes``.
    """

    code: bytes
    sources: Mapping[str, str]
    features: Sequence[str] = ()
    version: str = ""
    toolchain: Mapping[str, str] = field(default_factory=dict)
    shared_bytes: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def _opencl(kernels: Sequence[Kernel], target: Target) -> DeviceCode:
    text = opencl_c.emit_module(kernels, target)
    return DeviceCode(text.encode(), {"kernels.cl": text}, opencl_c.features(kernels, target), "1.2")


def _vulkan(kernels: Sequence[Kernel], target: Target) -> DeviceCode:
    module = spirv.emit_module(kernels, target)
    texts = {"kernels.spvasm": spirv_text.assembly(module.code)}
    return DeviceCode(module.code, texts, module.features, "1.1", shared_bytes=module.shared_bytes, parts=module.parts)


def _cuda(kernels: Sequence[Kernel], target: Target) -> DeviceCode:
    sm = ptx.architecture_for(int(str(target.attributes["sm"])))
    for kernel in kernels:
        kernel.computes_float64(target)
    source = cuda_c.emit_module(kernels)
    module = ptx.emit_module(kernels, sm)
    sources = {"kernels.cu": source, "kernels.ll": module.llvm_ir, "kernels.ptx": module.text}
    return DeviceCode(module.text.encode(), sources, (), str(sm), {"llvm": llvm_version()})


#: Target kind → its generator.
GENERATORS: dict[str, Callable[[Sequence[Kernel], Target], DeviceCode]] = {
    "cuda": _cuda,
    "opencl": _opencl,
    "vulkan": _vulkan,
}


def build_kernels(
    lowered: IRModule,
    original: IRModule,
    written: IRModule,
    target: Target,
    step: Callable[[str], AbstractContextManager[None]],
) -> tuple[artifact_pb2.Variant, DeviceCode]:
    """The variant of a module that ``split_kernels`` has seen, and its code.

    Args:
        written: the module before anything was scheduled.

    Raises:
        BuildFailed: a kernel exceeds the target, or its language cannot express it.
        UnsupportedTarget: no generator for the target's kind.
    """
    try:
        generate = GENERATORS[target.kind]
    except KeyError:
        raise UnsupportedTarget(f"this server has no code generator for target kind {target.kind!r} yet") from None
    functions = {name: func for name, func in lowered.prim_funcs.items() if not func.private}
    if not functions:
        raise BuildFailed(f"module {original.name!r} has no public function to build")
    callers = callees_of(lowered.prim_funcs)
    owners = {name: str(func.attrs[KERNEL_OF]) for name, func in lowered.prim_funcs.items() if KERNEL_OF in func.attrs}
    kernels = {name: Kernel.of(name, lowered.prim_func(name)) for name in owners}
    for kernel in kernels.values():
        _check_limits(kernel, kernel.shared_bytes, target)
    with step("codegen"):
        device = generate(tuple(kernels.values()), target)
    shared = {name: device.shared_bytes.get(name, kernel.shared_bytes) for name, kernel in kernels.items()}
    for name, kernel in kernels.items():
        _check_limits(kernel, shared[name], target)
    entries, steps = [], EntrySteps(written)
    for name, func in functions.items():
        planned = plan_launches(name, func, kernels, lowered.prim_funcs)
        entries.append(
            artifact_pb2.EntryPoint(
                name=name,
                parameters=parameters_of(name, func, original),
                symbols=symbol_names(func),
                launch=planned.plan,
                failures=planned.failures,
                steps=steps.of(name, func, planned.launches),
            )
        )
    variant = artifact_pb2.Variant(
        target=target.to_proto(),
        requires=artifact_pb2.Requirements(
            device_features=device.features,
            threads_per_group=max((k.threads_per_group for k in kernels.values()), default=0),
            shared_bytes=max(shared.values(), default=0),
            device_version=device.version,
        ),
        entry_points=entries,
        runtime=target.kind,
        kernels=[
            kernel_message(kernel, callers.get(owners[name], [owners[name]]), shared[name], device.parts.get(name, {}))
            for name, kernel in kernels.items()
        ],
    )
    return variant, device


def toolchain(device: DeviceCode) -> dict[str, str]:
    """Of an artifact with these kernels."""
    return {"crossfarm": __version__, **device.toolchain}


def _check_limits(kernel: Kernel, shared_bytes: int, target: Target) -> None:
    limit = int(str(target.attributes.get("max_threads_per_group", 0)))
    if limit and kernel.threads_per_group > limit:
        x, y, z = kernel.group
        raise BuildFailed(
            f"kernel {kernel.name!r} has {kernel.threads_per_group} threads in a group ({x} × {y} × {z}), target "
            f"{target} allows {limit}",
            hint="bind shorter loops to threadIdx, or name a target with a higher max_threads_per_group",
        )
    shared = int(str(target.attributes.get("shared_bytes", 0)))
    if shared_bytes > shared:
        largest = ", ".join(f"{b.name}" for b in kernel.shared)
        raise BuildFailed(
            f"kernel {kernel.name!r} needs {shared_bytes:,} bytes of shared memory ({largest}), target {target} has "
            f"{shared:,}",
            hint="use smaller tiles, or name a target with more shared_bytes",
        )
