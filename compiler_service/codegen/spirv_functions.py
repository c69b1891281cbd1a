"""Functions of float32 that kernels call, each written once a module; with a stated error for each.

GLSL.std.450 has most of them, but a device may be off by thousands of units in the last place there. These are made of
sums, products, divisions and square roots. The stated error is what a device gives that rounds those correctly; Vulkan
allows it 2.5 units for a division, which the functions that end in one inherit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import MappingProxyType

from compiler_service.codegen.spirv_arith import Arithmetic
from compiler_service.codegen.spirv_code import Value
from compiler_service.codegen.spirv_opcodes import BuiltIn, Decoration, Op, Storage
from compiler_service.codegen.spirv_term import SpirvTerm
from compiler_service.codegen.spirv_types import Types
from compiler_service.codegen.vector_math import (
    coefficients,
    exponential,
    hyperbolic,
    inverse,
    logarithm,
    single_power,
)
from compiler_service.codegen.vector_math import single_trigonometric as angles
from compiler_service.codegen.vector_math.double_single import Pair, quick_sum

Emit = Callable[..., SpirvTerm]


@dataclass(frozen=True)
class DeviceFunction:
    """A function of float32.

    Attributes:
        emit: writes its code.
        ulp: the largest error, in units of the result's last place.
    """

    emit: Emit
    arity: int
    ulp: float


class Library:
    """What a module's kernels share: functions, and the variables that say which thread runs.

    Attributes:
        entry_points: functions that are kernels, so far.
    """

    def __init__(self, types: Types) -> None:
        self.types = types
        self.entry_points: list[int] = []
        self._written: dict[str, int] = {}
        self._built_ins: dict[BuiltIn, int] = {}

    def built_in(self, what: BuiltIn, type_id: int) -> int:
        """The input variable of that meaning."""
        if what not in self._built_ins:
            module = self.types.module
            self._built_ins[what] = module.variable(Storage.INPUT, type_id, what.name.lower())
            module.decorate(self._built_ins[what], Decoration.BUILT_IN, what)
        return self._built_ins[what]

    def call(self, c: Arithmetic, name: str, args: Sequence[Value]) -> Value:
        """``FUNCTIONS[name]`` of float32 values."""
        function = self._written.get(name) or self._write(name)
        result = c.typed(Op.FUNCTION_CALL, self.types.register("float32"), function, *(a.id for a in args))
        return Value(result, "float32")

    def _write(self, name: str) -> int:
        function = FUNCTIONS[name]
        c = Arithmetic(self.types, f"crossfarm.{name}", "float32", ["float32"] * function.arity)
        result = function.emit(*(SpirvTerm(c, p) for p in c.parameters))
        c.leave(result.value)
        c.finish()
        self._written[name] = c.id
        return c.id


# --- angles


def _of_angle(function: Callable[[angles.Angle[SpirvTerm]], SpirvTerm], x: SpirvTerm, *, keeps_zero: bool) -> SpirvTerm:
    """NaN for infinities.

    Args:
        keeps_zero: of a zero the function is that zero, with its sign.
    """
    c = x.c
    size = x.magnitude()

    def large() -> list[Value]:
        return _values(_large_angle(x))

    def small() -> list[Value]:
        return _values(angles.reduced(x))

    high, low, quadrant = (SpirvTerm(c, v) for v in c.all_chosen((size > angles.LIMIT).value, large, small))
    result = function(angles.Angle(Pair(high, low), quadrant))
    if keeps_zero:
        result = size.equals(0.0).where(x, result)
    return (size < math.inf).where(result, math.nan)


def _values(angle: angles.Angle[SpirvTerm]) -> list[Value]:
    return [angle.rest.high.value, angle.rest.low.value, angle.quadrant.value]


def _large_angle(x: SpirvTerm) -> angles.Angle[SpirvTerm]:
    """The needed digits of ``1 / (2 * pi)``, picked by the exponent, times the digits of ``x``, as integers.

    Digits above give whole turns and are skipped; 64 binary digits of the turn's fraction are left. Source: M. Payne
    and R. Hanek, "Radian reduction for trigonometric functions", SIGNUM Newsletter 18, 1983.
    """
    c = x.c
    bits = SpirvTerm(c, Value(x.bits().value.id, "uint32"))
    magnitude = bits & 0x7FFFFFFF
    position = _shifted(magnitude, 23) - (150 - 32)
    start, shift = _shifted(position, 5), position & 31
    words = [_picked(start, coefficients.TURNS[k : k + 5]) for k in range(4)]
    back = 31 - shift
    window = [
        SpirvTerm(c, c.binary("bitor", _left(high, shift), _right(_shifted(low, 1), back)))
        for high, low in pairwise(words)
    ]
    mantissa = (magnitude & 0x7FFFFF) | 0x800000
    (top, _), (middle, over_middle), (_, over_last) = (_full_product(mantissa, w) for w in window)
    low = middle + over_last
    carried = SpirvTerm(c, c.select((low < middle).value, low.operand(1), low.operand(0)))
    high = top + over_middle + carried
    quadrant = _shifted(high + (1 << 29), 30)
    # what is left is signed: take its magnitude
    signed = SpirvTerm(c, Value((high - (quadrant << 30)).value.id, "int32"))
    negative = signed < 0
    high = SpirvTerm(c, Value(signed.value.id, "uint32"))
    borrow = SpirvTerm(c, c.select(low.equals(0).value, low.operand(1), low.operand(0)))
    high = negative.where((high ^ 0xFFFFFFFF) + borrow, high)
    low = negative.where(0 - low, low)
    # 64 binary digits in two floats: the first holds those above the 40th exactly
    above = (high & 0xFFFFFF00).to("float32").times(2.0**-32)
    below = ((high << 24) | _shifted(low, 8)).to("float32").times(2.0**-56)
    rest = quick_sum(above, below).times_constant(2 * math.pi)
    if_negative = x.bits() < 0
    flip = negative ^ if_negative
    quadrant = SpirvTerm(c, Value(quadrant.value.id, "int32"))
    return angles.Angle(
        Pair(flip.where(-rest.high, rest.high), flip.where(-rest.low, rest.low)),
        if_negative.where(0 - quadrant, quadrant),
    )


def _picked(start: SpirvTerm, words: Sequence[int]) -> SpirvTerm:
    result = start.filled(words[0])
    for position, word in enumerate(words[1:], start=1):
        result = start.equals(position).where(word, result)
    return result


def _full_product(a: SpirvTerm, b: SpirvTerm) -> tuple[SpirvTerm, SpirvTerm]:
    """Low and high 32 bits."""
    c = a.c
    word = c.types.register("uint32")
    both = c.typed(Op.U_MUL_EXTENDED, c.module.type_id(Op.TYPE_STRUCT, word, word), a.value.id, b.value.id)
    low, high = (c.typed(Op.COMPOSITE_EXTRACT, word, both, part) for part in (0, 1))
    return SpirvTerm(c, Value(low, "uint32")), SpirvTerm(c, Value(high, "uint32"))


def _shifted(a: SpirvTerm, count: int) -> SpirvTerm:
    """A uint32 to the right."""
    return SpirvTerm(a.c, a.c.binary("shr", a.value, a.operand(count)))


def _left(a: SpirvTerm, count: SpirvTerm) -> Value:
    return a.c.binary("shl", a.value, count.value)


def _right(a: SpirvTerm, count: SpirvTerm) -> Value:
    return a.c.binary("shr", a.value, count.value)


# --- the rest


def _hypot(x: SpirvTerm, y: SpirvTerm) -> SpirvTerm:
    """Scaled by a power of two, so that no square overflows; infinite beside an infinity, even one of a NaN."""
    a, b = x.magnitude(), y.magnitude()
    large = (a > 2.0**60) | (b > 2.0**60)
    small = (a < 2.0**-40) & (b < 2.0**-40)
    up = large.where(2.0**-70, small.where(2.0**80, a.filled(1.0)))
    down = large.where(2.0**70, small.where(2.0**-80, a.filled(1.0)))
    a, b = a * up, b * up
    result = (a * a + b * b).square_root() * down
    return (x.magnitude().equals(math.inf) | y.magnitude().equals(math.inf)).where(math.inf, result)


def _cbrt(x: SpirvTerm) -> SpirvTerm:
    """A third of the exponent, by the bits, then Newton's iteration."""
    size = x.magnitude()
    tiny = size < 2.0**-100
    scaled = tiny.where(size * 2.0**72, size)
    third = (scaled.bits().to("float32") * (1 / 3)).to("int32") + 0x2A5137A0
    y = third.as_float()
    for _ in range(3):
        y = y - (y - scaled / (y * y)) * (1 / 3)
    result = tiny.where(y * 2.0**-24, y)
    special = size.equals(0.0) | size.equals(math.inf) | (size.equals(size) ^ 1)
    return special.where(x, result.with_sign_of(x))


def _fmod(x: SpirvTerm, y: SpirvTerm) -> SpirvTerm:
    """Exact: the integers that the digits are, divided eight bits at a time."""
    c = x.c
    a, b = x.magnitude(), y.magnitude()
    regular = (a < math.inf) & (b > 0.0) & (b < math.inf) & (a >= b)
    exponents, mantissas = [], []
    for size in (a, b):
        bits = size.bits()
        exponent = bits >> 23
        denormal = exponent.equals(0)
        exponents.append(denormal.where(1, exponent))
        mantissas.append(denormal.where(bits & 0x7FFFFF, (bits & 0x7FFFFF) | 0x800000))

    def remainder(m: SpirvTerm) -> SpirvTerm:
        words = (Value(t.value.id, "uint32") for t in (m, mantissas[1]))
        return SpirvTerm(c, Value(c.unsigned_quotient("mod", *words).id, "int32"))

    def divide() -> Value:
        def step(v: Sequence[Value]) -> list[Value]:
            rest, exponent = (SpirvTerm(c, x) for x in v)
            ahead = exponent - exponents[1]
            count = SpirvTerm(c, c.binary("min", ahead.value, ahead.operand(8)))
            shifted = SpirvTerm(c, c.binary("shl", rest.value, count.value))
            return [remainder(shifted).value, (exponent - count).value]

        rest, _ = c.loop(
            [remainder(mantissas[0]).value, exponents[0].value],
            lambda v: (SpirvTerm(c, v[1]) > exponents[1]).value,
            lambda v: None,
            step,
        )
        # an integer below 2**24 times a power of two that no denormal is too small for: exact in two steps
        power = exponents[1] - 150
        half = power >> 1
        return (SpirvTerm(c, rest).to("float32") * half.power_of_two() * (power - half).power_of_two()).value

    found = SpirvTerm(c, c.chosen(regular.value, divide, lambda: a.value))
    no_number = (a < math.inf) & (b > 0.0)
    return no_number.where(found, math.nan).with_sign_of(x)


def _nextafter(x: SpirvTerm, y: SpirvTerm) -> SpirvTerm:
    bits = x.bits()
    away = (x < y) ^ (bits < 0)
    moved = (bits + away.where(1, bits.filled(-1))).as_float()
    first = (y.bits() & -(1 << 31) | 1).as_float()
    result = x.equals(0.0).where(first, moved)
    result = x.equals(y).where(y, result)
    return (x.equals(x) & y.equals(y)).where(result, math.nan)


FUNCTIONS: Mapping[str, DeviceFunction] = MappingProxyType(
    {
        "exp": DeviceFunction(exponential.exp, 1, 1.0),
        "exp2": DeviceFunction(exponential.exp2, 1, 1.25),
        "exp10": DeviceFunction(exponential.exp10, 1, 1.25),
        "expm1": DeviceFunction(hyperbolic.expm1, 1, 1.75),
        "sigmoid": DeviceFunction(exponential.sigmoid, 1, 2.5),
        "tanh": DeviceFunction(exponential.tanh, 1, 1.5),
        "erf": DeviceFunction(exponential.erf, 1, 2.0),
        "log": DeviceFunction(logarithm.log, 1, 1.0),
        "log2": DeviceFunction(logarithm.log2, 1, 1.25),
        "log10": DeviceFunction(logarithm.log10, 1, 1.0),
        "log1p": DeviceFunction(logarithm.log1p, 1, 1.0),
        "sin": DeviceFunction(partial(_of_angle, angles.sine, keeps_zero=True), 1, 1.0),
        "cos": DeviceFunction(partial(_of_angle, angles.cosine, keeps_zero=False), 1, 1.0),
        "tan": DeviceFunction(partial(_of_angle, angles.tangent, keeps_zero=True), 1, 2.5),
        "pow": DeviceFunction(single_power.pow, 2, 1.25),
        "asin": DeviceFunction(inverse.asin, 1, 2.5),
        "acos": DeviceFunction(inverse.acos, 1, 1.25),
        "atan": DeviceFunction(inverse.atan, 1, 2.0),
        "atan2": DeviceFunction(inverse.atan2, 2, 2.5),
        "sinh": DeviceFunction(hyperbolic.sinh, 1, 1.75),
        "cosh": DeviceFunction(hyperbolic.cosh, 1, 1.75),
        "asinh": DeviceFunction(hyperbolic.asinh, 1, 2.0),
        "acosh": DeviceFunction(hyperbolic.acosh, 1, 2.0),
        "atanh": DeviceFunction(hyperbolic.atanh, 1, 2.25),
        "hypot": DeviceFunction(_hypot, 2, 1.25),
        "cbrt": DeviceFunction(_cbrt, 1, 1.0),
        "fmod": DeviceFunction(_fmod, 2, 0.0),
        "nextafter": DeviceFunction(_nextafter, 2, 0.0),
    }
)
