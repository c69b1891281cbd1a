"""The intrinsics a ``Call`` may name: one row each, with a stable id that files carry.

Adding one is: a row here, its meaning in ``crossfarm/ir/interpreter``, its code in ``compiler_service/codegen``. Ids
are never reused.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Intrinsic:
    """One callable.

    Attributes:
        id: stable number in serialized modules.
        script: names it has in script text, the canonical one first.
        arity: number of arguments, -1 for any.
        result: ``same`` (dtype of the first argument), ``bool``, ``second`` (of the second argument), ``given`` (the
            Call says), ``void`` (no value; dtype is the string ``"void"``'s stand-in, int32 0).
        domain: ``float``, ``int``, ``number`` or ``any``: what the first argument may be.
        pure: no effect; may be moved, duplicated and dropped.
    """

    name: str
    id: int
    arity: int
    result: str = "same"
    domain: str = "float"
    pure: bool = True
    script: tuple[str, ...] = ()


# Tables keep their rows.
# fmt: off
_ROWS = (
    *(
        Intrinsic(name, number, 1)
        for number, name in enumerate(
            ["exp", "exp2", "exp10", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "tanh", "sigmoid", "erf",
             "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
             "floor", "ceil", "round", "trunc", "nearbyint"],
            start=1,
        )
    ),
    Intrinsic("abs", 40, 1, domain="number", script=("abs", "fabs")),
    Intrinsic("pow", 41, 2, script=("pow", "power")),
    Intrinsic("atan2", 42, 2),
    Intrinsic("fmod", 43, 2),
    Intrinsic("hypot", 44, 2),
    Intrinsic("copysign", 45, 2),
    Intrinsic("nextafter", 46, 2),
    Intrinsic("ldexp", 47, 2),
    Intrinsic("fma", 48, 3),
    Intrinsic("isnan", 49, 1, result="bool"),
    Intrinsic("isinf", 50, 1, result="bool"),
    Intrinsic("isfinite", 51, 1, result="bool"),
    Intrinsic("popcount", 52, 1, domain="int"),
    Intrinsic("clz", 53, 1, result="given", domain="int"),
    Intrinsic("bitwise_not", 54, 1, domain="int"),
    Intrinsic("reinterpret", 55, 1, result="given", domain="any"),
    Intrinsic("if_then_else", 56, 3, result="second", domain="any"),
    Intrinsic("likely", 57, 1, domain="any"),
    # a promise: the reference interpreter raises ProgramError where it is broken, compiled code does not look
    Intrinsic("assume", 58, 1, result="void", domain="any", pure=False),
    Intrinsic("call_extern", 59, -1, result="given", domain="any", pure=False),
    Intrinsic("call_pure_extern", 60, -1, result="given", domain="any"),
    Intrinsic("ret", 61, 1, result="void", domain="any", pure=False),
    Intrinsic("q_multiply_shift", 62, 4, domain="int"),
    # 63 and 64 were shift_left and shift_right, which are the operators shl and shr
    Intrinsic("storage_sync", 65, -1, result="void", domain="any", pure=False, script=("tvm_storage_sync",)),
    Intrinsic("address_of", 66, 1, result="given", domain="any"),
    # dot4(c, a, b): c[i] + the sum of a[4*i + j] * b[4*i + j] over j < 4; int32 and 8-bit integers of either sign
    Intrinsic("dot4", 67, 3, domain="int"),
    # launch_kernel(name, …): runs a kernel of the module; one argument a parameter, a buffer by its address
    Intrinsic("launch_kernel", 68, -1, result="void", domain="any", pure=False),
    # prefetch(address, level): a hint that the line of an element will be read, into the cache of that level; an
    # address outside of the buffer is no error
    Intrinsic("prefetch", 69, 2, result="void", domain="any", pure=False),
    # call_function(name, …): runs a private function of the module, see ``crossfarm.ir.calls``
    Intrinsic("call_function", 70, -1, result="void", domain="any", pure=False),
)

INTRINSICS: dict[str, Intrinsic] = {row.name: row for row in _ROWS}
BY_ID: dict[int, Intrinsic] = {row.id: row for row in _ROWS}
BY_SCRIPT: dict[str, Intrinsic] = {script: row for row in _ROWS for script in (row.script or (row.name,))}

#: C functions that ``call_extern`` and ``call_pure_extern`` may name, with their arity: libm's, per float dtype
#: (``f`` suffix for float32), and the C library's memory functions, whose pointers are buffer addresses.
EXTERN_ALLOWED: dict[str, int] = {
    **{
        f"{name}{suffix}": arity
        for suffix in ("", "f")
        for arity, names in {
            1: ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "cbrt", "sin", "cos", "tan", "asin",
                "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "tgamma", "lgamma",
                "floor", "ceil", "round", "trunc", "nearbyint", "rint", "fabs"),
            2: ("pow", "fmod", "atan2", "hypot", "fmin", "fmax", "fdim", "copysign", "remainder", "nextafter"),
            3: ("fma",),
        }.items()
        for name in names
    },
    "memcpy": 3,
    "memmove": 3,
    "memset": 3,
}
# fmt: on
