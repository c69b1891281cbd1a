"""Intrinsics of kernels → LLVM IR, where there is no ``libm`` to call: our own code, instructions, or a refusal.

LLVM aborts the process where it is left with a function that the GPU does not have, so none gets there.
"""

from __future__ import annotations

from compiler_service.codegen import vector_math
from compiler_service.codegen.llvm_half import is_half
from compiler_service.codegen.llvm_math import Emitter, float_call, vector_function
from compiler_service.codegen.llvm_text import Value, int_constant
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Call, StringImm
from crossfarm.ir.intrinsics import EXTERN_ALLOWED, INTRINSICS

#: Functions of floats that are instructions of the GPU, or few of them, in float32 and float64.
_INSTRUCTIONS = frozenset(("sqrt", "rsqrt", "fma", "floor", "ceil", "trunc", "round", "nearbyint", "abs", "copysign"))
#: What ``call_extern`` calls otherwise than the intrinsics.
_EXTERN = {"fabs": "abs", "rint": "nearbyint"}


def call_of_device(e: Emitter, node: Call) -> Value | None:
    """The value of a call that is made differently for a GPU; None for one that CPUs make alike.

    Raises:
        BuildFailed: there is no code for it.
    """
    if node.op in ("ret", "launch_kernel", "address_of"):
        raise BuildFailed(
            f"kernel {e.function!r}: {node.op} cannot be a value in PTX",
            hint="a kernel's threads have no addresses to pass, and return where it is a statement of its own",
        )
    if node.op == "prefetch":  # other threads compute while one waits
        return int_constant("int32", 0)
    if node.op in ("call_extern", "call_pure_extern"):
        return _extern(e, node)
    if INTRINSICS[node.op].domain == "float" and INTRINSICS[node.op].result == "same" and node.op != "ldexp":
        return _function(e, node.op, [e.emit(a) for a in node.args])
    return None


def _function(e: Emitter, name: str, args: list[Value]) -> Value:
    dtype = args[0].dtype
    if is_half(dtype) and name != "abs":  # whose bits are masked
        wide = _function(e, name, [e.half.widen(e.b, a) for a in args])
        return e.half.narrow(e.b, wide, dtype)
    scalar = dt.scalar_of(dtype)
    if name in vector_math.WITHOUT_LIBM and scalar == "float32":
        return vector_function(e, name, args)
    if name in _INSTRUCTIONS or (name in vector_math.FUNCTIONS and scalar == "float32"):
        return float_call(e, name, args)
    raise BuildFailed(
        f"kernel {e.function!r}: there is no {name} of {scalar} for CUDA devices",
        hint=f"cast to float32 around {name}, or build for a CPU or an OpenCL device",
        details={"function": name, "dtype": scalar},
    )


def _extern(e: Emitter, node: Call) -> Value:
    name = node.args[0].value if node.args and isinstance(node.args[0], StringImm) else ""
    plain = name[:-1] if name.endswith("f") and name != "erf" else name
    dtype = "float64" if plain == name else "float32"
    intrinsic = _EXTERN.get(plain, plain)
    made = intrinsic in INTRINSICS or intrinsic in vector_math.WITHOUT_LIBM
    known = made and name in EXTERN_ALLOWED and len(node.args) - 1 == EXTERN_ALLOWED[name]
    if not known:
        raise BuildFailed(
            f"kernel {e.function!r}: {node.op} of {name!r} cannot be made in PTX",
            hint="write it with the intrinsics of crossfarm/ir/intrinsics.py, or build for a CPU",
        )
    args = [e.convert(e.emit(a), dtype) for a in node.args[1:]]
    return e.convert(_function(e, intrinsic, args), node.dtype)
