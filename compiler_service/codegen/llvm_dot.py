"""``dot4`` → LLVM IR: sums of four products of 8-bit integers, by one instruction where the target has it.

x86 multiplies unsigned by signed bytes (``vpdpbusd`` of AVX-512 VNNI and AVX-VNNI; AVX-VNNI-INT8 has both equal signs
too), aarch64 equal signs (``sdot`` and ``udot`` of the dotprod extension; i8mm adds ``usdot``). Other signs are made of
these without loss: with its highest bit flipped and read in the other signedness, a byte is its value plus a constant,
and what the constant adds to the sum is what the instruction gives for it alone. That part depends on ``b`` only, so
it is computed once for all ``a`` that meet one ``b``.

Everywhere else the products are computed in pairs of 16-bit integers, which LLVM recognizes as ``pmaddwd`` on x86 and
as widening multiplications on Arm. All of it is exact, and sums wrap around in 32 bits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from compiler_service.codegen.llvm_text import Builder, Value, int_constant, register_type, zero
from crossfarm.ir import dtype as dt

#: Signedness of a dot product's factors: whether ``a`` and ``b`` are signed.
Signs = tuple[bool, bool]


@dataclass(frozen=True)
class DotInstruction:
    """An instruction of the target.

    Attributes:
        intrinsic: LLVM's name of it, called with the accumulator and both factors.
        lanes: int32 lanes of its accumulator.
        signs: what it takes its factors for.
    """

    intrinsic: str
    lanes: int
    signs: Signs


@dataclass(frozen=True)
class DotProducts:
    """What a target has for ``dot4``; without an instruction, it is composed of others.

    Attributes:
        instructions: those it has.
        constraint: of a vector register in inline assembly, where LLVM must not see the constants that signs are
            changed by, else ``""``. With AVX-512VL its instruction selection (in LLVM 22) never ends on a broadcast of
            four bytes that its optimizer moved such a constant through.
    """

    instructions: tuple[DotInstruction, ...] = ()
    constraint: str = ""

    @classmethod
    def of(cls, arch: str, features: Collection[str]) -> DotProducts:
        """For an architecture with LLVM's ``features`` enabled."""
        found = {"x86_64": _x86, "aarch64": _aarch64}.get(arch)
        return cls(() if found is None else tuple(found(features)), "v" if "avx512vl" in features else "")

    def emit(self, b: Builder, c: Value, x: Value, y: Value) -> Value:
        """``c`` plus the products of four neighbouring lanes of ``x`` and ``y`` in each lane."""
        lanes = dt.lanes_of(c.dtype)
        width = max((one.lanes for one in self.instructions if lanes % one.lanes == 0), default=None)
        if width is None:
            return _in_pairs(b, c, x, y)
        available = {one.signs: one.intrinsic for one in self.instructions if one.lanes == width}
        pieces = [
            _native(
                b,
                available,
                self.constraint,
                _piece(b, c, first, width),
                _piece(b, x, 4 * first, 4 * width),
                _piece(b, y, 4 * first, 4 * width),
            )
            for first in range(0, lanes, width)
        ]
        return _joined(b, pieces, c.dtype)


def _x86(features: Collection[str]) -> Iterator[DotInstruction]:
    """Unsigned by signed; VNNI's 512-bit form, its shorter ones, and AVX-VNNI-INT8's further signs."""
    if "avx512vnni" in features:
        yield DotInstruction("x86.avx512.vpdpbusd.512", 16, (False, True))
    if "avxvnni" in features or {"avx512vnni", "avx512vl"} <= set(features):
        for width in (256, 128):
            yield DotInstruction(f"x86.avx512.vpdpbusd.{width}", width // 32, (False, True))
    if "avxvnniint8" in features:
        for width in (256, 128):
            yield DotInstruction(f"x86.avx2.vpdpbssd.{width}", width // 32, (True, True))
            yield DotInstruction(f"x86.avx2.vpdpbuud.{width}", width // 32, (False, False))


def _aarch64(features: Collection[str]) -> Iterator[DotInstruction]:
    for lanes in (4, 2):
        types = f"v{lanes}i32.v{4 * lanes}i8"
        if "dotprod" in features:
            yield DotInstruction(f"aarch64.neon.sdot.{types}", lanes, (True, True))
            yield DotInstruction(f"aarch64.neon.udot.{types}", lanes, (False, False))
        if "i8mm" in features:
            yield DotInstruction(f"aarch64.neon.usdot.{types}", lanes, (False, True))


def _native(b: Builder, available: dict[Signs, str], constraint: str, c: Value, x: Value, y: Value) -> Value:
    """By the target's instructions of one width."""
    x_signed, y_signed = dt.is_signed(x.dtype), dt.is_signed(y.dtype)
    if {(x_signed, y_signed), (y_signed, x_signed)} & set(available):
        return _call(b, available, (x_signed, y_signed), c, x, y)
    # x' = x with its highest bit flipped, in the other signedness: x = x' - 0x80', so x·y = x'·y - 0x80'·y
    signs = (not x_signed, y_signed)
    high_bit = _opaque(b, int_constant(x.dtype, -0x80 if x_signed else 0x80), constraint)
    flipped = b.value(x.dtype, f"xor {x.typed}, {high_bit.text}")
    shifted = _call(b, available, signs, c, flipped, y)
    excess = _call(b, available, signs, zero(c.dtype), high_bit, y)
    return b.value(c.dtype, f"sub {shifted.typed}, {excess.text}")


def _opaque(b: Builder, constant: Value, constraint: str) -> Value:
    """A constant that LLVM's optimizer does not see through, in a register; costs no instruction."""
    if not constraint:
        return constant
    identity = f'asm "", "={constraint},0"({constant.typed}) #2'
    return b.value(constant.dtype, f"call {register_type(constant.dtype)} {identity}")


def _call(b: Builder, available: dict[Signs, str], signs: Signs, c: Value, x: Value, y: Value) -> Value:
    """The instruction for ``signs``, whatever the dtypes say, or the one for them the other way round."""
    if signs not in available:
        signs, x, y = (signs[1], signs[0]), y, x
    arguments = ", ".join(v.typed for v in (c, x, y))
    return b.value(c.dtype, f"call {register_type(c.dtype)} @llvm.{available[signs]}({arguments})")


def _in_pairs(b: Builder, c: Value, x: Value, y: Value) -> Value:
    """Bytes at even and at odd places as 16-bit integers; products of neighbours added in 32 bits."""
    lanes = dt.lanes_of(c.dtype)
    wide = dt.with_lanes("int32", 2 * lanes)
    result = c
    for odd in (False, True):
        factors = [_every_second(b, v, odd) for v in (x, y)]
        widened = [b.value(wide, f"sext {f.typed} to {register_type(wide)}") for f in factors]
        product = b.value(wide, f"mul nsw {widened[0].typed}, {widened[1].text}")
        pair = b.value(
            c.dtype, f"add nsw {_lanes(b, product, 0, 2, lanes).typed}, {_lanes(b, product, 1, 2, lanes).text}"
        )
        result = b.value(c.dtype, f"add {result.typed}, {pair.text}")
    return result


def _every_second(b: Builder, value: Value, odd: bool) -> Value:
    """The even or odd bytes of a vector as 16-bit integers."""
    dtype = dt.with_lanes("int16", dt.lanes_of(value.dtype) // 2)
    pairs = b.value(dtype, f"bitcast {value.typed} to {register_type(dtype)}")
    shift = "ashr" if dt.is_signed(value.dtype) else "lshr"
    eight = int_constant(dtype, 8)
    if not odd:
        pairs = b.value(dtype, f"shl {pairs.typed}, {eight.text}")
    return b.value(dtype, f"{shift} {pairs.typed}, {eight.text}")


def _lanes(b: Builder, vector: Value, first: int, step: int, count: int) -> Value:
    """``count`` lanes of a vector as one; of one lane, a scalar."""
    dtype = dt.with_lanes(vector.dtype, count)
    if count == 1:
        return b.value(dtype, f"extractelement {vector.typed}, i32 {first}")
    mask = ", ".join(f"i32 {first + step * i}" for i in range(count))
    return b.value(
        dtype, f"shufflevector {vector.typed}, {register_type(vector.dtype)} poison, <{count} x i32> <{mask}>"
    )


def _piece(b: Builder, vector: Value, first: int, count: int) -> Value:
    return vector if count == dt.lanes_of(vector.dtype) else _lanes(b, vector, first, 1, count)


def _joined(b: Builder, pieces: list[Value], dtype: str) -> Value:
    """Vectors of one length, one after the other."""
    while len(pieces) > 1:  # two at a time; an odd one is joined with itself, and what is too much cut off at the end
        pairs = [(pieces[i], pieces[min(i + 1, len(pieces) - 1)]) for i in range(0, len(pieces), 2)]
        lanes = 2 * dt.lanes_of(pieces[0].dtype)
        mask = ", ".join(f"i32 {i}" for i in range(lanes))
        pieces = [
            b.value(dt.with_lanes(p.dtype, lanes), f"shufflevector {p.typed}, {q.typed}, <{lanes} x i32> <{mask}>")
            for p, q in pairs
        ]
    (whole,) = pieces
    return whole if whole.dtype == dtype else _lanes(b, whole, 0, 1, dt.lanes_of(dtype))
