"""Kernels → PTX, by LLVM.

PTX is text that the GPU's driver compiles for the chip it finds: what is made for sm_53 runs on every later one. LLVM
still knows architectures that NVIDIA's current compiler has dropped, and needs none of NVIDIA's software.

Floats have the meaning that they have on CPUs (``llvm.py``): a product that is added may be fused, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler_service.codegen.kernel import Kernel
from compiler_service.codegen.llvm import Machine, assembly, optimize
from compiler_service.codegen.llvm_statement import Metadata
from compiler_service.codegen.ptx_kernel import KernelEmitter
from crossfarm.errors import BuildFailed, UnsupportedTarget

#: Memory of a group that a kernel can declare; more would have to be asked for at each launch.
MAX_SHARED_BYTES = 48 << 10
#: Compute capability → the PTX version that first knew it, ascending. Older ones are given what came with CUDA 10.2,
#: the last release for the first Jetsons.
_PTX_VERSIONS = {
    53: 65, 60: 65, 61: 65, 62: 65, 70: 65, 72: 65, 75: 65, 80: 70, 86: 71, 87: 74, 89: 78, 90: 78, 100: 86, 103: 88,
    110: 90, 120: 87, 121: 88,
}  # fmt: skip
_OPT_LEVEL = 3


@dataclass(frozen=True)
class PtxModule:
    """What was made.

    Attributes:
        text: PTX.
        llvm_ir: what LLVM was given.
    """

    text: str
    llvm_ir: str


def known_architectures() -> tuple[int, ...]:
    """Compute capabilities that there is code for, ascending."""
    return tuple(sorted(_PTX_VERSIONS))


def architecture_for(sm: int) -> int:
    """What to build for a GPU of that compute capability: it, or the next one below that LLVM knows.

    Raises:
        UnsupportedTarget: it is older than all of them.
    """
    older = [known for known in known_architectures() if known <= sm]
    if not older:
        raise UnsupportedTarget(
            f"there is no code generator for compute capability {sm}: the least is {known_architectures()[0]}",
            hint="use the GPU through OpenCL",
        )
    return older[-1]


def _machine(sm: int) -> Machine:
    return Machine("nvptx64-nvidia-cuda", f"sm_{sm}", f"+ptx{_PTX_VERSIONS[sm]}", f"sm_{sm}", _OPT_LEVEL)


def emit_module(kernels: Sequence[Kernel], sm: int) -> PtxModule:
    """PTX of all kernels, one translation unit.

    Args:
        sm: one of ``known_architectures``.

    Raises:
        BuildFailed: an operation that the GPU does not have, or more shared memory than a kernel can declare.
    """
    machine = _machine(sm)
    text = _llvm_ir(kernels, machine)
    return PtxModule(assembly(optimize(text, machine, vectorize=False), machine), text)


def _llvm_ir(kernels: Sequence[Kernel], machine: Machine) -> str:
    metadata = Metadata(1)
    definitions: dict[str, str] = {}
    parts = [f'source_filename = "crossfarm"\ntarget triple = "{machine.triple}"\n']
    for kernel in kernels:
        if kernel.shared_bytes > MAX_SHARED_BYTES:
            raise BuildFailed(
                f"kernel {kernel.name!r} shares {kernel.shared_bytes:,} bytes within a group; a CUDA kernel can "
                f"declare {MAX_SHARED_BYTES:,}",
                hint="use smaller tiles",
            )
        emitter = KernelEmitter(kernel, metadata)
        parts.append(emitter.run())
        definitions.update(emitter.externs)
    parts += [
        *(definitions[name] for name in sorted(definitions)),
        # numbered as the definitions of vector_math name them: inlined, and not; unlikely
        "attributes #3 = { alwaysinline nounwind willreturn memory(none) }",
        "attributes #4 = { noinline nounwind willreturn memory(none) }",
        '!0 = !{!"branch_weights", i32 1, i32 2000}',
        *metadata.nodes,
    ]
    return "\n".join(parts) + "\n"
