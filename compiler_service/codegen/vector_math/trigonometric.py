"""sin, cos, tan in float32, computed in float64 and rounded once.

``x`` is ``n`` times pi / 2 plus a rest within pi / 4. Below ``2**19`` the multiple is taken off in two parts, the first
so short that its product is exact (Cody and Waite). Above, the needed digits of ``1 / (2 * pi)`` are picked from a
table by the exponent, as integers (M. Payne and R. Hanek, "Radian reduction for trigonometric functions", SIGNUM
Newsletter 18, 1983): a function of its own, called lane by lane where any lane needs it.
"""

from __future__ import annotations

import math
from itertools import pairwise

from compiler_service.codegen.llvm_text import Builder, Value, register_type
from compiler_service.codegen.vector_math import coefficients as table
from compiler_service.codegen.vector_math.llvm_term import LlvmTerm
from compiler_service.codegen.vector_math.term import polynomial
from crossfarm.ir import dtype as dt

_LARGE = 2.0**19
_TWO_OVER_PI = 0.6366197723675814
#: pi / 2: 33 digits, and the rest.
_HALF_PI_HIGH, _HALF_PI_LOW = 1.5707963267341256, 6.077100506506192e-11
_REDUCE = "crossfarm.reduce_angle"


def sin(x: LlvmTerm) -> LlvmTerm:
    rest, quadrant = _reduced(x)
    return _finite(x, _sine(rest, quadrant))


def cos(x: LlvmTerm) -> LlvmTerm:
    rest, quadrant = _reduced(x)
    return _finite(x, _sine(rest, quadrant + 1))


def tan(x: LlvmTerm) -> LlvmTerm:
    rest, quadrant = _reduced(x)
    sine, cosine = _both(rest)
    odd = (quadrant & 1).equals(1)
    return _finite(x, odd.where(-cosine, sine) / odd.where(sine, cosine))


def large_angle_support(attributes: str) -> str:
    """LLVM IR of the function that reduces one large angle: rest in float64, quadrant above it as bits.

    The angle is ``m * 2**e`` with an integer m of 24 bits. Digits of ``1 / (2 * pi)`` above weight ``2**-e`` give whole
    turns and are skipped; the next 96 times m, modulo whole turns, are the turn's fraction to 72 digits.
    """
    words = ", ".join(f"i32 {w - (1 << 32) if w >> 31 else w}" for w in table.TURNS)
    b = Builder()
    x = LlvmTerm(b, Value("%x", "float32"))
    bits = x.bits() & 0x7FFFFFFF
    # the table begins with 32 zeros, so that the position is never negative
    position = (bits >> 23) - (150 - 32)
    position = (position < 0).where(0, position)  # small: called beside a large one, and not looked at
    start = position >> 5
    loaded = []
    for k in range(4):
        at = (start + k).to("int64")
        pointer = b.value("handle", f"getelementptr inbounds i32, ptr @{_REDUCE}.table, {at.value.typed}")
        loaded.append(LlvmTerm(b, b.value("int32", f"load i32, ptr {pointer.text}, align 4")))
    shift = position & 31
    window = []
    for high, low in pairwise(loaded):
        operands = ", ".join(t.value.typed for t in (high, low, shift))
        joined = b.value("int32", f"call i32 @llvm.fshl.i32({operands})")
        window.append(LlvmTerm(b, b.value("int64", f"zext {joined.typed} to i64")))
    mantissa = ((bits & 0x7FFFFF) | 0x800000).to("int64")
    lowest = mantissa * window[2]
    carried = LlvmTerm(b, b.value("int64", f"lshr {lowest.value.typed}, 32"))
    turn = ((mantissa * window[0]) << 32) + mantissa * window[1] + carried
    quadrant = (turn + (1 << 61)) >> 62
    rest = (turn - (quadrant << 62)).to("float64") * (2 * math.pi * 2.0**-64)
    negative = x.bits() < 0
    rest, quadrant = negative.where(-rest, rest), negative.where(0 - quadrant, quadrant)
    pair = b.value("float64", f"insertvalue {{ double, i32 }} poison, {rest.value.typed}, 0")
    both = b.value("float64", f"insertvalue {{ double, i32 }} {pair.text}, {quadrant.to('int32').value.typed}, 1")
    b.terminate(f"ret {{ double, i32 }} {both.text}")
    return (
        f"@{_REDUCE}.table = private unnamed_addr constant [{len(table.TURNS)} x i32] [{words}]\n"
        f"define internal {{ double, i32 }} @{_REDUCE}(float %x) {attributes} {{\n{b.text()}\n}}\n"
    )


def _reduced(x: LlvmTerm) -> tuple[LlvmTerm, LlvmTerm]:
    """The rest in float64, within pi / 4, and the number of the quadrant, whose lowest two bits count."""
    wide = x.to("float64")
    n, quadrant = (wide * _TWO_OVER_PI).rounded()
    rest = wide - n * _HALF_PI_HIGH - n * _HALF_PI_LOW
    return _where_large(x, rest, quadrant)


def _where_large(x: LlvmTerm, rest: LlvmTerm, quadrant: LlvmTerm) -> tuple[LlvmTerm, LlvmTerm]:
    """Replaces both in the lanes where ``x`` is large, in a branch that is seldom taken."""
    b = x.b
    large = x.magnitude() >= _LARGE
    any_ = large.value
    if x.lanes > 1:
        any_ = b.value("bool", f"call i1 @llvm.vector.reduce.or.v{x.lanes}i1({large.value.typed})")
    before, rare, after = b.block, b.name("large"), b.name("reduced")
    b.branch(any_, rare, after, ", !prof !0")
    b.open(rare)
    new_rest, new_quadrant = rest.value, quadrant.value
    for lane in range(x.lanes):
        element = x.value
        if x.lanes > 1:
            element = b.value("float32", f"extractelement {x.value.typed}, i32 {lane}")
        pair = b.value("float64", f"call {{ double, i32 }} @{_REDUCE}(float {element.text})")
        parts = [
            b.value(dtype, f"extractvalue {{ double, i32 }} {pair.text}, {position}")
            for position, dtype in enumerate(("float64", "int32"))
        ]
        if x.lanes == 1:
            new_rest, new_quadrant = parts
        else:
            new_rest, new_quadrant = (
                b.value(vector.dtype, f"insertelement {vector.typed}, {part.typed}, i32 {lane}")
                for vector, part in zip((new_rest, new_quadrant), parts)
            )
    new_rest = large.where(LlvmTerm(b, new_rest), rest).value
    new_quadrant = large.where(LlvmTerm(b, new_quadrant), quadrant).value
    b.open(after)
    chosen = (
        b.value(old.dtype, f"phi {register_type(old.dtype)} [ {old.text}, %{before} ], [ {new.text}, %{rare} ]")
        for old, new in ((rest.value, new_rest), (quadrant.value, new_quadrant))
    )
    first, second = (LlvmTerm(b, value) for value in chosen)
    return first, second


def _both(rest: LlvmTerm) -> tuple[LlvmTerm, LlvmTerm]:
    square = rest * rest
    sine = rest * (1.0 + square * polynomial(table.SIN, square))
    return sine, 1.0 + square * polynomial(table.COS, square)


def _sine(rest: LlvmTerm, quadrant: LlvmTerm) -> LlvmTerm:
    """The sine of the rest after that many quarter turns."""
    sine, cosine = _both(rest)
    value = (quadrant & 1).equals(1).where(cosine, sine)
    return (quadrant & 2).equals(2).where(-value, value)


def _finite(x: LlvmTerm, value: LlvmTerm) -> LlvmTerm:
    """``value`` in float32, NaN where ``x`` is none or infinite."""
    assert dt.scalar_of(value.dtype) == "float64"
    return (x.magnitude() < math.inf).where(value.to("float32"), math.nan)
