"""Intrinsics → SPIR-V.

float16 and bfloat16 go through float32, with one rounding at the end, but for what is exact in them. float64 has what
GLSL.std.450 has for it: square roots, rounding, signs; the rest is refused, as no device has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from compiler_service.codegen import spirv_opcodes as spv
from compiler_service.codegen.spirv_arith import Arithmetic
from compiler_service.codegen.spirv_code import Value
from compiler_service.codegen.spirv_convert import convert, low_bits
from compiler_service.codegen.spirv_functions import FUNCTIONS, Library
from compiler_service.codegen.spirv_opcodes import Glsl, Op
from compiler_service.codegen.spirv_term import SpirvTerm
from compiler_service.codegen.spirv_types import Types
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Call, Expr, FloatImm, StringImm
from crossfarm.ir.intrinsics import EXTERN_ALLOWED

#: What GLSL.std.450 gives exactly, in every float dtype.
_EXACT = {
    "floor": Glsl.FLOOR, "ceil": Glsl.CEIL, "trunc": Glsl.TRUNC, "nearbyint": Glsl.ROUND_EVEN, "rint": Glsl.ROUND_EVEN,
    "abs": Glsl.F_ABS, "fabs": Glsl.F_ABS,
}  # fmt: skip


class Emitter(Protocol):
    """What intrinsics need of ``spirv_expr.ExprEmitter``, which emits their arguments."""

    kernel: str
    types: Types
    library: Library
    c: Arithmetic

    def emit(self, node: Expr) -> Value: ...

    def choose(self, condition: Expr, if_true: Expr, if_false: Expr) -> Value: ...

    def is_unsafe(self, node: Expr) -> bool: ...


def emit_call(e: Emitter, node: Call) -> Value:
    """The value of an intrinsic call; int32 0 for one without a value."""
    special = _SPECIAL.get(node.op)
    if special is not None:
        return special(e, node)
    if node.op == "pow":
        product = _small_power(e, node)
        if product is not None:
            return product
    return _float_call(e, node.op, [e.emit(a) for a in node.args])


def _float_call(e: Emitter, name: str, args: list[Value]) -> Value:
    dtype, c = args[0].dtype, e.c
    if name in _EXACT and dtype != "bfloat16":
        return c.glsl(_EXACT[name], dtype, args[0])
    if dtype in ("float16", "bfloat16"):
        wide = _float_call(e, name, [convert(c, a, "float32") for a in args])
        return convert(c, wide, dtype)
    if name in _COMPOSED:
        return _COMPOSED[name](c, *args)
    if name in FUNCTIONS and dtype == "float32":
        return e.library.call(c, name, args)
    raise BuildFailed(
        f"kernel {e.kernel!r}: there is no {name} on {dtype} for Vulkan",
        hint="compute it in float32, or on the CPU" if dtype == "float64" else "compute it on the CPU",
    )


def _small_power(e: Emitter, node: Call) -> Value | None:
    """Powers that products give with fewer roundings than a logarithm would."""
    power = node.args[1]
    if not (isinstance(power, FloatImm) and power.value in (1.0, 2.0, 3.0)):
        return None
    x = e.emit(node.args[0])
    result = x
    for _ in range(int(power.value) - 1):
        result = e.c.binary("mul", result, x)
    return result


# --- composed of exact operations, on float32 and float64


def _sqrt(c: Arithmetic, x: Value) -> Value:
    return c.glsl(Glsl.SQRT, x.dtype, x)


def _rsqrt(c: Arithmetic, x: Value) -> Value:
    return c.binary("div", c.constant(x.dtype, 1.0), _sqrt(c, x))


def _fma(c: Arithmetic, x: Value, y: Value, z: Value) -> Value:
    """Rounded once where the device has such an instruction; Vulkan does not promise it."""
    return c.fused(x, y, z)


def _copysign(c: Arithmetic, x: Value, y: Value) -> Value:
    return SpirvTerm(c, x).with_sign_of(SpirvTerm(c, y)).value


def _round(c: Arithmetic, x: Value) -> Value:
    """Halves away from zero."""
    whole = c.glsl(Glsl.TRUNC, x.dtype, x)
    rest = SpirvTerm(c, x) - SpirvTerm(c, whole)
    size = SpirvTerm(c, whole).magnitude()
    return (rest.magnitude() >= 0.5).where(size + 1.0, size).with_sign_of(SpirvTerm(c, x)).value


def _fmin(c: Arithmetic, x: Value, y: Value) -> Value:
    """The number where the other is NaN."""
    return c.select(c.compare("eq", y, y), c.binary("min", x, y), x)


def _fmax(c: Arithmetic, x: Value, y: Value) -> Value:
    return c.select(c.compare("eq", y, y), c.binary("max", x, y), x)


def _fdim(c: Arithmetic, x: Value, y: Value) -> Value:
    zero = c.constant(x.dtype, 0.0)
    return c.select(c.compare("le", x, y), zero, c.binary("sub", x, y))


_COMPOSED: dict[str, Callable[..., Value]] = {
    "sqrt": _sqrt, "rsqrt": _rsqrt, "fma": _fma, "copysign": _copysign, "round": _round, "fmin": _fmin,
    "fmax": _fmax, "fdim": _fdim,
}  # fmt: skip


# --- intrinsics that are not plain float functions


def _abs(e: Emitter, node: Call) -> Value:
    value = e.emit(node.args[0])
    if dt.is_float(value.dtype):
        if value.dtype == "bfloat16":
            return Value(e.c.glsl(Glsl.F_ABS, "float32", value).id, value.dtype)
        return e.c.glsl(Glsl.F_ABS, value.dtype, value)
    if dt.is_unsigned(value.dtype):
        return value
    if dt.bits(value.dtype) == 64:  # GLSL.std.450 has it for 32 bits everywhere
        negative = e.c.compare("lt", value, e.c.constant(value.dtype, 0))
        return e.c.select(negative, e.c.negative(value), value)
    return e.c.wrapped(e.c.glsl(Glsl.S_ABS, value.dtype, value))


def _classify(e: Emitter, node: Call) -> Value:
    """By the bits: a device may take for granted that arithmetic gives neither NaN nor infinity."""
    c, value = e.c, e.emit(node.args[0])
    if not dt.is_float(value.dtype):
        return c.constant("bool", int(node.op == "isfinite"))
    if value.dtype == "float16":
        value = convert(c, value, "float32")
    size = SpirvTerm(c, c.bits_of(value))
    bits = dt.bits(size.dtype)
    infinity = 0x7F800000 if bits == 32 else 0x7FF << 52
    size = size & ((1 << (bits - 1)) - 1)
    if node.op == "isnan":
        return (size > infinity).value
    return (size.equals(infinity) if node.op == "isinf" else size < infinity).value


def _words(e: Emitter, value: Value) -> list[Value]:
    """An integer's bits as uint32, low word first; those of a small one are its dtype's only."""
    c = e.c
    if dt.bits(value.dtype) == 64:
        high = c.binary("shr", Value(value.id, "uint64"), c.constant("uint64", 32))
        return [low_bits(c, value, "uint32"), low_bits(c, high, "uint32")]
    if dt.bits(value.dtype) < 32:
        value = c.wrapped(Value(value.id, f"uint{dt.bits(value.dtype)}"))
    return [Value(value.id, "uint32")]


def _popcount(e: Emitter, node: Call) -> Value:
    value = e.emit(node.args[0])
    counts = [e.c.value(Op.BIT_COUNT, "uint32", word) for word in _words(e, value)]
    total = counts[0] if len(counts) == 1 else e.c.binary("add", *counts)
    return low_bits(e.c, total, value.dtype)


def _clz(e: Emitter, node: Call) -> Value:
    c, value = e.c, e.emit(node.args[0])
    zeros: Value | None = None
    for word in _words(e, value):
        # of zero the highest bit's number is -1
        top = c.glsl(Glsl.FIND_U_MSB, "int32", word)
        here = c.binary("sub", c.constant("int32", min(dt.bits(value.dtype), 32) - 1), top)
        if zeros is None:
            zeros = here
        else:
            empty = c.compare("eq", word, c.constant("uint32", 0))
            zeros = c.select(empty, c.binary("add", zeros, c.constant("int32", 32)), here)
    assert zeros is not None
    return low_bits(c, zeros, node.dtype)


def _bitwise_not(e: Emitter, node: Call) -> Value:
    value = e.emit(node.args[0])
    if value.dtype == "bool":
        return e.c.negated(value)
    return e.c.wrapped(e.c.value(Op.NOT, value.dtype, value))


def _reinterpret(e: Emitter, node: Call) -> Value:
    """Keeps the bits. Registers of 16-bit floats do not hold them as such."""
    c, value, dtype = e.c, e.emit(node.args[0]), node.dtype
    source = value.dtype
    if source == dtype:
        return value
    if source == "bfloat16":
        bits = Value(c.bits_of(value).id, "uint32")
        value = Value(c.binary("shr", bits, c.constant("uint32", 16)).id, "uint16")
    elif source == "float16":
        e.types.need("int16", "the bits of a float16")
        half = c.typed(Op.BITCAST, c.module.type_id(Op.TYPE_INT, 16, 0), value.id)
        value = Value(c.typed(Op.U_CONVERT, c.module.uint_type(), half), "uint16")
    elif dt.is_float(source):
        value = c.bits_of(value)
    if dtype == "bfloat16":
        word = c.binary("shl", Value(value.id, "uint32"), c.constant("uint32", 16))
        return Value(c.float_of(word).id, dtype)
    if dtype == "float16":
        e.types.need("int16", "the bits of a float16")
        half = c.typed(Op.U_CONVERT, c.module.type_id(Op.TYPE_INT, 16, 0), value.id)
        return Value(c.typed(Op.BITCAST, e.types.register(dtype), half), dtype)
    if dt.is_float(dtype):
        return c.float_of(value)
    return low_bits(c, value, dtype)


def _if_then_else(e: Emitter, node: Call) -> Value:
    condition, if_true, if_false = node.args
    if e.is_unsafe(if_true) or e.is_unsafe(if_false):
        return e.choose(condition, if_true, if_false)
    flag, a, b = (e.emit(x) for x in node.args)
    return e.c.select(flag, a, b)


def _likely(e: Emitter, node: Call) -> Value:
    return e.emit(node.args[0])


def _assume(e: Emitter, node: Call) -> Value:
    """Nothing, as for every hint: a broken promise must not become undefined behaviour."""
    return e.c.constant("int32", 0)


def _ldexp(e: Emitter, node: Call) -> Value:
    """In three steps, of which only the last can round."""
    c = e.c
    value, power = e.emit(node.args[0]), convert(c, e.emit(node.args[1]), "int32")
    if value.dtype == "float64":
        raise BuildFailed(f"kernel {e.kernel!r}: there is no ldexp on float64 for Vulkan", hint="compute it in float32")
    x, n = SpirvTerm(c, convert(c, value, "float32")), SpirvTerm(c, power)
    n = (n < -280).where(-280, n)
    n = (n > 280).where(280, n)
    # what is left is within ``scaled``'s range; a number that small powers make denormal is rounded once
    first = (n > 0).where((n > 127).where(127, n), (n < -126).where(-100, n))
    return convert(c, (x * first.power_of_two()).scaled(n - first).value, value.dtype)


def _q_multiply_shift(e: Emitter, node: Call) -> Value:
    """``x * y * 2**(s - q)`` in 64 bits, halves rounded up."""
    c = e.c
    e.types.need("int64", "q_multiply_shift")
    x, y, q, s = (convert(c, e.emit(a), "int64") for a in node.args)
    none, one = c.constant("int64", 0), c.constant("int64", 1)
    left = _max64(c, s)
    right = c.binary("add", _max64(c, c.binary("sub", none, s)), q)
    product = c.binary("mul", c.binary("shl", x, left), y)
    half = c.binary("shl", one, c.binary("sub", right, one))
    return low_bits(c, c.binary("shr", c.binary("add", product, half), right), node.dtype)


def _max64(c: Arithmetic, a: Value) -> Value:
    zero = c.constant("int64", 0)
    return c.select(c.compare("gt", a, zero), a, zero)


def _call_extern(e: Emitter, node: Call) -> Value:
    name = node.args[0].value if node.args and isinstance(node.args[0], StringImm) else ""
    if name not in EXTERN_ALLOWED or name in ("memcpy", "memmove", "memset"):
        raise BuildFailed(
            f"kernel {e.kernel!r}: {node.op} of {name!r} cannot be called from a device's code",
            hint="copy memory with a loop over elements; of libm's functions those of float32 can be called",
        )
    single = name.endswith("f") and name[:-1] in EXTERN_ALLOWED
    dtype, function = ("float32", name[:-1]) if single else ("float64", name)
    return convert(e.c, _float_call(e, function, [convert(e.c, e.emit(a), dtype) for a in node.args[1:]]), node.dtype)


def _storage_sync(e: Emitter, node: Call) -> Value:
    scope, semantics = e.c.module.uint(spv.SCOPE_WORKGROUP), e.c.module.uint(spv.BARRIER_SEMANTICS)
    e.c.do(Op.CONTROL_BARRIER, scope, scope, semantics)
    return e.c.constant("int32", 0)


def _refused(what: str, hint: str) -> Callable[[Emitter, Call], Value]:
    def refuse(e: Emitter, node: Call) -> Value:
        raise BuildFailed(f"kernel {e.kernel!r}: {what}", hint=hint)

    return refuse


_SPECIAL: dict[str, Callable[[Emitter, Call], Value]] = {
    "abs": _abs, "isnan": _classify, "isinf": _classify, "isfinite": _classify, "popcount": _popcount, "clz": _clz,
    "bitwise_not": _bitwise_not, "reinterpret": _reinterpret, "if_then_else": _if_then_else, "likely": _likely,
    "assume": _assume, "ldexp": _ldexp, "q_multiply_shift": _q_multiply_shift, "call_extern": _call_extern,
    "call_pure_extern": _call_extern, "storage_sync": _storage_sync, "prefetch": _assume,
    "address_of": _refused("there are no addresses in SPIR-V", "copy memory with a loop over elements"),
    "dot4": _refused("dot4 reached the generator of SPIR-V", "the pass scalarize_vectors must run before"),
}  # fmt: skip
