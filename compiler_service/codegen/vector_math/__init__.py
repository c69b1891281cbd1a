"""Functions of float32 as LLVM IR that computes any number of lanes at once, with a stated error for each.

Each becomes a function that LLVM inlines: of scalars, so that the loop vectorizer sees plain arithmetic, or of vectors.
They are right for NaN, infinities, signed zeros and denormals, arguments and results; they call nothing; and they use
no instruction that only some CPUs have, but for multiplying by a power of two, which has the same result everywhere.
Which are here, and how close they are: ``FUNCTIONS``, and docs/math.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from compiler_service.codegen.llvm_text import Builder, Value, register_type
from compiler_service.codegen.vector_math import (
    exponential,
    hyperbolic,
    inverse,
    logarithm,
    power,
    trigonometric,
    without_libm,
)
from compiler_service.codegen.vector_math.llvm_term import LlvmTerm
from crossfarm.ir import dtype as dt

#: Attribute groups that ``llvm.emit_module`` defines: inlined always, and never.
INLINED, OUT_OF_LINE = "#3", "#4"


@dataclass(frozen=True)
class VectorFunction:
    """A function of float32.

    Attributes:
        emit: appends its code to the arguments' builder.
        arity: number of arguments.
        ulp: the largest error, in units of the result's last place (0.5 is the least there can be).
        support: LLVM IR of what it calls, by symbol.
    """

    emit: Callable[..., LlvmTerm]
    arity: int
    ulp: float
    support: tuple[tuple[str, Callable[[str], str]], ...] = ()


def _rsqrt(x: LlvmTerm) -> LlvmTerm:
    return 1.0 / x.square_root()


_ANGLES = (("crossfarm.reduce_angle", trigonometric.large_angle_support),)

FUNCTIONS: Mapping[str, VectorFunction] = MappingProxyType(
    {
        "exp": VectorFunction(exponential.exp, 1, 1.0),
        "exp2": VectorFunction(exponential.exp2, 1, 1.25),
        "exp10": VectorFunction(exponential.exp10, 1, 1.25),
        "sigmoid": VectorFunction(exponential.sigmoid, 1, 2.5),
        "tanh": VectorFunction(exponential.tanh, 1, 1.5),
        "erf": VectorFunction(exponential.erf, 1, 2.0),
        "log": VectorFunction(logarithm.log, 1, 1.0),
        "log2": VectorFunction(logarithm.log2, 1, 1.0),
        "log10": VectorFunction(logarithm.log10, 1, 1.0),
        "log1p": VectorFunction(logarithm.log1p, 1, 1.0),
        "sin": VectorFunction(trigonometric.sin, 1, 0.51, _ANGLES),
        "cos": VectorFunction(trigonometric.cos, 1, 0.51, _ANGLES),
        "tan": VectorFunction(trigonometric.tan, 1, 0.51, _ANGLES),
        "pow": VectorFunction(power.pow, 2, 0.51),
        "rsqrt": VectorFunction(_rsqrt, 1, 1.5),
    }
)

#: For devices that have no libm to call: what CPUs call it for.
WITHOUT_LIBM: Mapping[str, VectorFunction] = MappingProxyType(
    {
        "asin": VectorFunction(inverse.asin, 1, 2.5),
        "acos": VectorFunction(inverse.acos, 1, 2.5),
        "atan": VectorFunction(inverse.atan, 1, 2.0),
        "atan2": VectorFunction(inverse.atan2, 2, 2.5),
        "sinh": VectorFunction(hyperbolic.sinh, 1, 2.0),
        "cosh": VectorFunction(hyperbolic.cosh, 1, 2.0),
        "asinh": VectorFunction(hyperbolic.asinh, 1, 4.0),
        "acosh": VectorFunction(hyperbolic.acosh, 1, 4.0),
        "atanh": VectorFunction(hyperbolic.atanh, 1, 4.0),
        "expm1": VectorFunction(hyperbolic.expm1, 1, 2.0),
        "hypot": VectorFunction(without_libm.hypot, 2, 0.51),
        "fmod": VectorFunction(without_libm.fmod, 2, 0.0),
        "nextafter": VectorFunction(without_libm.nextafter, 2, 0.0),
    }
)


@cache
def definitions(name: str, lanes: int, *, scales: bool = False) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The symbol of the function ``name`` for that many lanes; and symbol and LLVM IR of each definition it needs.

    Args:
        scales: multiply by powers of two with LLVM's ``ldexp``, which must be an instruction of the target.
    """
    function = FUNCTIONS.get(name) or WITHOUT_LIBM[name]
    dtype = dt.with_lanes("float32", lanes)
    symbol = f"crossfarm.{name}.{'' if lanes == 1 else f'v{lanes}'}f32"
    b = Builder()
    arguments = [Value(f"%x{k}", dtype) for k in range(function.arity)]
    result = function.emit(*(LlvmTerm(b, a, scales) for a in arguments))
    b.terminate(f"ret {result.value.typed}")
    parameters = ", ".join(a.typed for a in arguments)
    text = f"define internal {register_type(dtype)} @{symbol}({parameters}) {INLINED} {{\n{b.text()}\n}}\n"
    support = tuple((needed, make(OUT_OF_LINE)) for needed, make in function.support)
    return symbol, ((symbol, text), *support)
