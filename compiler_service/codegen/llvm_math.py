"""Intrinsics → LLVM IR: our own vector code, LLVM's where it has one, libm's functions, or composed of others.

float16 and bfloat16 go through float32, with one rounding at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from compiler_service.codegen import vector_math
from compiler_service.codegen.llvm_abilities import Abilities
from compiler_service.codegen.llvm_half import HalfConversions, is_half
from compiler_service.codegen.llvm_text import Builder, Value, float_constant, int_constant, register_type, zero
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Call, Expr, StringImm
from crossfarm.ir.intrinsics import EXTERN_ALLOWED

#: Intrinsic → LLVM's, for float32 and float64.
_LLVM = {
    "exp": "exp", "exp2": "exp2", "log": "log", "log2": "log2", "log10": "log10", "sqrt": "sqrt",
    "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "atan2": "atan2", "pow": "pow", "fma": "fma",
    "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "round", "nearbyint": "nearbyint",
    "abs": "fabs", "copysign": "copysign",
}  # fmt: skip
#: Intrinsic → libm's function for float64; float32's has an ``f`` appended.
_LIBM = {name: name for name in ("log1p", "erf", "asinh", "acosh", "atanh", "fmod", "hypot", "nextafter")}


class Emitter(Protocol):
    """What intrinsics need of ``llvm_expr.ExprEmitter``, which emits their arguments."""

    function: str
    can: Abilities
    half: HalfConversions
    b: Builder
    externs: dict[str, str]

    def emit(self, node: Expr) -> Value: ...

    def address(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Value: ...

    def choose(self, condition: Expr, if_true: Expr, if_false: Expr) -> Value: ...

    def is_unsafe(self, node: Expr) -> bool: ...

    def binary(self, op: str, a: Value, b: Value) -> Value: ...

    def convert(self, value: Value, dtype: str) -> Value: ...

    def extract(self, vector: Value, lane: int) -> Value: ...

    def insert(self, vector: Value, element: Value, lane: int) -> Value: ...


def emit_call(e: Emitter, node: Call) -> Value:
    """The value of an intrinsic call; int32 0 for one without a value."""
    special = _SPECIAL.get(node.op)
    if special is not None:
        return special(e, node)
    args = [e.emit(a) for a in node.args]
    return float_call(e, node.op, args)


def float_call(e: Emitter, name: str, args: list[Value]) -> Value:
    """A function of floats on values of one dtype."""
    dtype = args[0].dtype
    if is_half(dtype):
        wide = float_call(e, name, [e.half.widen(e.b, a) for a in args])
        return e.half.narrow(e.b, wide, dtype)
    if name in vector_math.FUNCTIONS and dt.scalar_of(dtype) == "float32":
        return vector_function(e, name, args)
    if name in _LLVM:
        return float_intrinsic(e, _LLVM[name], *args)
    if name in _LIBM:
        return _libm(e, _LIBM[name], args)
    if name == "rsqrt":
        root = float_intrinsic(e, "sqrt", args[0])
        return e.b.value(dtype, f"fdiv {float_constant(dtype, 1.0).typed}, {root.text}")
    if name == "sigmoid":
        negated = e.b.value(dtype, f"fneg {args[0].typed}")
        power = float_intrinsic(e, "exp", negated)
        one = float_constant(dtype, 1.0)
        total = e.b.value(dtype, f"fadd {one.typed}, {power.text}")
        return e.b.value(dtype, f"fdiv {one.typed}, {total.text}")
    if name == "exp10":  # of float64: not every C library has exp10
        return float_intrinsic(e, "pow", float_constant(dtype, 10.0), args[0])
    raise BuildFailed(f"function {e.function!r}: no code for intrinsic {name!r} on {dtype}")


#: Powers that products give with fewer roundings than a logarithm would.
_SMALL_POWERS: dict[float, Callable[[Emitter, Value], Value]] = {
    1.0: lambda e, x: x,
    2.0: lambda e, x: e.binary("mul", x, x),
    3.0: lambda e, x: e.binary("mul", e.binary("mul", x, x), x),
}


def float_intrinsic(e: Emitter, name: str, *args: Value) -> Value:
    """LLVM's intrinsic ``name`` on arguments of one float32 or float64 dtype, lanes included."""
    dtype = args[0].dtype
    return e.b.value(
        dtype, f"call {register_type(dtype)} @llvm.{name}.{_suffix(dtype)}({', '.join(a.typed for a in args)})"
    )


def vector_function(e: Emitter, name: str, args: list[Value]) -> Value:
    """A call of our own code of ``vector_math``, on float32."""
    dtype = args[0].dtype
    if name == "pow":
        for constant, product in _SMALL_POWERS.items():
            if args[1].text == float_constant(dtype, constant).text:
                return product(e, args[0])
    symbol, definitions = vector_math.definitions(name, dt.lanes_of(dtype), scales=e.can.scales)
    e.externs.update(definitions)
    return e.b.value(dtype, f"call {register_type(dtype)} @{symbol}({', '.join(a.typed for a in args)})")


def _suffix(dtype: str) -> str:
    scalar, lanes = dt.split(dtype)
    letter = "f" if dt.is_float(scalar) else "i"
    width = 1 if scalar == "bool" else dt.bits(scalar)
    return f"{letter}{width}" if lanes == 1 else f"v{lanes}{letter}{width}"


def _libm(e: Emitter, name: str, args: list[Value]) -> Value:
    """A call of libm's function for each lane."""
    scalar, lanes = dt.split(args[0].dtype)
    if lanes > 1:
        result = Value("poison", args[0].dtype)
        for lane in range(lanes):
            element = _libm(e, name, [e.extract(a, lane) for a in args])
            result = e.insert(result, element, lane)
        return result
    symbol = f"{name}f" if scalar == "float32" else name
    type_ = register_type(scalar)
    e.externs[symbol] = f"declare {type_} @{symbol}({', '.join([type_] * len(args))}) #2"
    return e.b.value(scalar, f"call {type_} @{symbol}({', '.join(a.typed for a in args)})")


# --- intrinsics that are not plain float functions


def _abs(e: Emitter, node: Call) -> Value:
    value = e.emit(node.args[0])
    if dt.is_float(value.dtype):
        if is_half(value.dtype):
            mask = int_constant(dt.with_lanes("uint16", dt.lanes_of(value.dtype)), 0x7FFF)
            return e.b.value(value.dtype, f"and {value.typed}, {mask.text}")
        return float_intrinsic(e, "fabs", value)
    if dt.is_signed(value.dtype):
        return e.b.value(
            value.dtype, f"call {register_type(value.dtype)} @llvm.abs.{_suffix(value.dtype)}({value.typed}, i1 false)"
        )
    return value


def _classify(e: Emitter, node: Call) -> Value:
    value = e.emit(node.args[0])
    if not dt.is_float(value.dtype):
        return int_constant(node.dtype, int(node.op == "isfinite"))
    if is_half(value.dtype):
        value = e.half.widen(e.b, value)
    # bits of llvm.is.fpclass: 3 any NaN, 0x204 either infinity, 0x1F8 the finite ones
    mask = {"isnan": 0x3, "isinf": 0x204, "isfinite": 0x1F8}[node.op]
    type_ = register_type(node.dtype)
    return e.b.value(node.dtype, f"call {type_} @llvm.is.fpclass.{_suffix(value.dtype)}({value.typed}, i32 {mask})")


def _popcount(e: Emitter, node: Call) -> Value:
    value = e.emit(node.args[0])
    return e.b.value(
        value.dtype, f"call {register_type(value.dtype)} @llvm.ctpop.{_suffix(value.dtype)}({value.typed})"
    )


def _clz(e: Emitter, node: Call) -> Value:
    value = e.emit(node.args[0])
    call = f"call {register_type(value.dtype)} @llvm.ctlz.{_suffix(value.dtype)}({value.typed}, i1 false)"
    return e.convert(e.b.value(value.dtype, call), node.dtype)


def _bitwise_not(e: Emitter, node: Call) -> Value:
    value = e.emit(node.args[0])
    ones = "true" if dt.is_bool(value.dtype) else "-1"
    if dt.lanes_of(value.dtype) > 1:
        ones = f"splat ({register_type(dt.scalar_of(value.dtype))} {ones})"
    return e.b.value(value.dtype, f"xor {value.typed}, {ones}")


def _reinterpret(e: Emitter, node: Call) -> Value:
    value = e.emit(node.args[0])
    source, target = register_type(value.dtype), register_type(node.dtype)
    if dt.is_bool(value.dtype):
        byte = dt.with_lanes("uint8", dt.lanes_of(value.dtype))
        value, source = e.b.value(byte, f"zext {value.typed} to {register_type(byte)}"), register_type(byte)
    if dt.is_bool(node.dtype):
        return e.b.value(node.dtype, f"icmp ne {value.typed}, zeroinitializer")
    if source == target:
        return Value(value.text, node.dtype)
    return e.b.value(node.dtype, f"bitcast {value.typed} to {target}")


def _if_then_else(e: Emitter, node: Call) -> Value:
    condition, if_true, if_false = node.args
    if dt.lanes_of(condition.dtype) == 1:
        if e.is_unsafe(if_true) or e.is_unsafe(if_false):
            return e.choose(condition, if_true, if_false)
    elif e.is_unsafe(if_true) or e.is_unsafe(if_false):
        raise BuildFailed(
            f"function {e.function!r}: if_then_else with a vector condition guards an access or a division",
            hint="write the guard per element: crossfarm vectorizes the loop itself",
        )
    flag, a, b = e.emit(condition), e.emit(if_true), e.emit(if_false)
    return e.b.value(node.dtype, f"select {flag.typed}, {a.typed}, {b.typed}")


def _likely(e: Emitter, node: Call) -> Value:
    return e.emit(node.args[0])


def _assume(e: Emitter, node: Call) -> Value:
    """Nothing: telling LLVM would turn a broken promise into undefined behaviour."""
    return int_constant("int32", 0)


def _ldexp(e: Emitter, node: Call) -> Value:
    value, exponent = (e.emit(x) for x in node.args)
    if is_half(value.dtype):
        wide = _ldexp_values(e, e.half.widen(e.b, value), exponent)
        return e.half.narrow(e.b, wide, value.dtype)
    return _ldexp_values(e, value, exponent)


def _ldexp_values(e: Emitter, value: Value, exponent: Value) -> Value:
    power = e.convert(exponent, dt.with_lanes("int32", dt.lanes_of(value.dtype)))
    type_ = register_type(value.dtype)
    call = f"call {type_} @llvm.ldexp.{_suffix(value.dtype)}.{_suffix(power.dtype)}({value.typed}, {power.typed})"
    return e.b.value(value.dtype, call)


def _q_multiply_shift(e: Emitter, node: Call) -> Value:
    """``x * y * 2**(s - q)`` in 64 bits, halves rounded up."""
    wide = dt.with_lanes("int64", dt.lanes_of(node.dtype))
    x, y, q, s = (e.convert(e.emit(a), wide) for a in node.args)
    none, one = int_constant(wide, 0), int_constant(wide, 1)
    left = e.binary("max", s, none)
    right = e.binary("add", e.binary("max", e.binary("sub", none, s), none), q)
    product = e.binary("mul", e.binary("shl", x, left), y)
    half = e.binary("shl", one, e.binary("sub", right, one))
    return e.convert(e.binary("shr", e.binary("add", product, half), right), node.dtype)


def _dot4(e: Emitter, node: Call) -> Value:
    return e.can.dots.emit(e.b, *(e.emit(a) for a in node.args))


def _call_extern(e: Emitter, node: Call) -> Value:
    name = node.args[0].value if node.args and isinstance(node.args[0], StringImm) else None
    if name not in EXTERN_ALLOWED or len(node.args) - 1 != EXTERN_ALLOWED[name]:
        raise BuildFailed(
            f"function {e.function!r}: {node.op} of {name!r} with {len(node.args) - 1} arguments is not allowed",
            hint="the allowed functions and their arity are EXTERN_ALLOWED in crossfarm/ir/intrinsics.py",
        )
    if name in ("memcpy", "memmove", "memset"):
        return _memory_call(e, name, node)
    scalar = "float32" if name.endswith("f") and name != "erf" else "float64"
    args = [e.convert(e.emit(a), dt.with_lanes(scalar, dt.lanes_of(a.dtype))) for a in node.args[1:]]
    libm_name = name if scalar == "float64" else name[:-1]
    return e.convert(_libm(e, libm_name, args), node.dtype)


def _memory_call(e: Emitter, name: str, node: Call) -> Value:
    target = e.emit(node.args[1])
    second = e.emit(node.args[2])
    size = e.convert(e.emit(node.args[3]), "int64")
    if name == "memset":
        second = e.convert(second, "int8")
        e.b.do(f"call void @llvm.memset.p0.i64({target.typed}, {second.typed}, {size.typed}, i1 false)")
    else:
        e.b.do(f"call void @llvm.{name}.p0.p0.i64({target.typed}, {second.typed}, {size.typed}, i1 false)")
    return (
        target
        if node.dtype == "handle"
        else zero(node.dtype)
        if dt.is_float(node.dtype)
        else int_constant(node.dtype, 0)
    )


def _address_of(e: Emitter, node: Call) -> Value:
    load: Expr = node.args[0]
    if not isinstance(load, BufferLoad):
        raise BuildFailed(f"function {e.function!r}: address_of takes a buffer element")
    return e.address(load.buffer, load.indices)


def _ret(e: Emitter, node: Call) -> Value:
    e.emit(node.args[0])
    e.b.terminate("ret i32 0")
    e.b.open(e.b.name("unreached"))
    return int_constant("int32", 0)


def _storage_sync(e: Emitter, node: Call) -> Value:
    """One thread has nobody to wait for."""
    return int_constant("int32", 0)


def _prefetch(e: Emitter, node: Call) -> Value:
    """For reading; LLVM counts localities from 3, the nearest cache, down."""
    level = const_int(node.args[1])
    e.b.do(f"call void @llvm.prefetch.p0({e.emit(node.args[0]).typed}, i32 0, i32 {3 if level == 1 else 2}, i32 1)")
    return int_constant("int32", 0)


_SPECIAL: dict[str, Callable[[Emitter, Call], Value]] = {
    "abs": _abs, "isnan": _classify, "isinf": _classify, "isfinite": _classify, "popcount": _popcount, "clz": _clz,
    "bitwise_not": _bitwise_not, "reinterpret": _reinterpret, "if_then_else": _if_then_else, "likely": _likely,
    "assume": _assume, "ldexp": _ldexp,
    "q_multiply_shift": _q_multiply_shift, "dot4": _dot4, "call_extern": _call_extern, "call_pure_extern": _call_extern,
    "address_of": _address_of, "ret": _ret, "storage_sync": _storage_sync, "prefetch": _prefetch,
}  # fmt: skip
