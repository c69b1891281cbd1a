"""Checked constructors: they unify dtypes as TVMScript does, and refuse what would be meaningless.

The rules, in order, when two operands differ: a Python number takes the other side's dtype where its value fits; a
scalar beside a vector is broadcast; an integer beside a float is cast to it; the narrower of two floats or of two
integers of one signedness is cast to the wider; signed beside unsigned gives signed of the wider width; bool beside a
number is cast to it. Casting a literal gives a literal. Every refusal is an ``InvalidModule`` that names the operator
and the dtypes. Source of the rules: TVM's ``BinaryOpMatchTypes`` (``src/tir/op/op.cc``).
"""

from __future__ import annotations

import math

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import (
    BITWISE,
    COMPARISONS,
    LOGICAL,
    Binary,
    Broadcast,
    Call,
    Cast,
    Expr,
    FloatImm,
    IntImm,
    Not,
    Select,
    StringImm,
)
from crossfarm.ir.intrinsics import INTRINSICS, Intrinsic

#: What every helper takes: an expression, or a Python number that adopts the dtype of its surroundings.
Operand = Expr | bool | int | float

_INT_ONLY = ("mod", "floordiv", "floormod", "shl", "shr")
_INSTEAD = {
    "mod": "use T.fmod for floats",
    "floordiv": "for floats write T.floor(a / b)",
    "floormod": "use T.fmod for floats",
}
#: Rounding an integer is the integer itself.
_ROUNDING = ("floor", "ceil", "round", "trunc", "nearbyint")


def const(value: bool | int | float, dtype: str | None = None) -> Expr:
    """A literal; without a dtype bool, int32 (int64 where it does not fit) or float32. A vector dtype broadcasts.

    Raises InvalidModule when the value does not fit the dtype.
    """
    if dtype is None:
        dtype = _default_dtype(value)
    scalar, lanes = dt.split(dtype)
    if dt.is_float(scalar):
        literal: Expr = FloatImm(float(value), scalar)
    elif scalar == "handle":
        raise InvalidModule(f"{value!r} cannot be a handle", hint="a handle is the address of a buffer")
    else:
        if isinstance(value, float) and (not math.isfinite(value) or value != int(value)):
            raise InvalidModule(f"{value!r} is not a value of {scalar}", hint="write it as a float, or cast it")
        low, high = dt.int_range(scalar)
        if not low <= value <= high:
            raise InvalidModule(f"{value} does not fit {scalar} ({low} to {high})", hint="write it with a wider dtype")
        literal = IntImm(int(value), scalar)
    return literal if lanes == 1 else Broadcast(literal, lanes)


def as_expr(value: Operand) -> Expr:
    """The expression itself, or the literal of a Python number with its default dtype."""
    return value if isinstance(value, Expr) else const(value)


def unify(a: Operand, b: Operand, what: str = "operator") -> tuple[Expr, Expr]:
    """Both operands in one dtype, by the rules above. Raises InvalidModule where there is none."""
    if not isinstance(a, Expr) and isinstance(b, Expr):
        a = _adopt(a, b.dtype)
    elif not isinstance(b, Expr) and isinstance(a, Expr):
        b = _adopt(b, a.dtype)
    x, y = as_expr(a), as_expr(b)
    if x.dtype == y.dtype:
        return x, y
    if "handle" in (x.dtype, y.dtype):
        raise InvalidModule(f"{what}: {x.dtype} and {y.dtype} cannot be used together", hint="a handle is opaque")
    (xs, xl), (ys, yl) = dt.split(x.dtype), dt.split(y.dtype)
    if xl != yl:
        if 1 not in (xl, yl):
            raise InvalidModule(f"{what}: vectors of {xl} and {yl} lanes", hint="use vectors of equal length")
        x, y = broadcast(x, max(xl, yl)), broadcast(y, max(xl, yl))
    common = dt.with_lanes(common_dtype(xs, ys), max(xl, yl))
    return cast(x, common), cast(y, common)


def common_dtype(a: str, b: str) -> str:
    """The scalar dtype in which two different scalar dtypes meet."""
    if a == b:
        return a
    if dt.is_bool(a) or dt.is_bool(b):
        return b if dt.is_bool(a) else a
    if dt.is_float(a) != dt.is_float(b):
        return a if dt.is_float(a) else b
    width = max(dt.bits(a), dt.bits(b))
    if dt.is_float(a):
        if {a, b} == {"float16", "bfloat16"}:  # neither holds the other
            return "float32"
        return a if dt.bits(a) == width else b
    if dt.is_signed(a) == dt.is_signed(b):
        return a if dt.bits(a) == width else b
    return f"int{width}"


def broadcast(value: Expr, lanes: int) -> Expr:
    """``value`` in each of ``lanes`` lanes; a vector of that length is itself."""
    have = dt.lanes_of(value.dtype)
    if have == lanes:
        return value
    if have != 1:
        raise InvalidModule(f"a vector of {have} lanes cannot be broadcast to {lanes}")
    return Broadcast(value, lanes)


def cast(value: Operand, dtype: str) -> Expr:
    """Converted to ``dtype``: nothing where it is that already, a literal for a literal, else a Cast."""
    if not isinstance(value, Expr):
        return const(value, dtype)
    if value.dtype == dtype:
        return value
    if "handle" in (value.dtype, dtype):
        raise InvalidModule(f"{value.dtype} cannot be cast to {dtype}", hint="use T.reinterpret for bit patterns")
    lanes = dt.lanes_of(dtype)
    if dt.lanes_of(value.dtype) != lanes:
        if dt.lanes_of(value.dtype) != 1:
            raise InvalidModule(f"{value.dtype} cannot be cast to {dtype}: the number of lanes differs")
        return broadcast(cast(value, dt.scalar_of(dtype)), lanes)
    if isinstance(value, Broadcast):
        return Broadcast(cast(value.value, dt.scalar_of(dtype)), value.lanes)
    if isinstance(value, IntImm):
        if dt.is_float(dtype):
            return FloatImm(float(value.value), dtype)
        low, high = dt.int_range(dtype)
        if dt.is_bool(dtype) or low <= value.value <= high:
            return IntImm(int(value.value != 0) if dt.is_bool(dtype) else value.value, dtype)
    if isinstance(value, FloatImm) and dt.is_float(dtype) and dt.bits(dtype) >= dt.bits(value.dtype):
        return FloatImm(value.value, dtype)
    return Cast(value, dtype)


def binary(op: str, a: Operand, b: Operand) -> Expr:
    """``a op b`` for any of BINARY_OPS, operands unified and checked; nothing is folded."""
    x, y = unify(a, b, op)
    scalar = dt.scalar_of(x.dtype)
    if op in LOGICAL:
        if not dt.is_bool(scalar):
            raise InvalidModule(f"{op} needs bool operands, not {x.dtype}", hint="compare first: x != 0")
    elif scalar == "handle":
        raise InvalidModule(f"{op} is not defined on handles", hint="index the buffer instead of its address")
    elif op in _INT_ONLY and not dt.is_int(scalar):
        raise InvalidModule(f"{op} needs integers, not {x.dtype}", hint=_INSTEAD.get(op, "cast to an integer first"))
    elif op in BITWISE and dt.is_float(scalar):
        raise InvalidModule(f"{op} needs integers or bool, not {x.dtype}", hint="T.reinterpret gives a float's bits")
    elif op in ("add", "sub", "mul", "div") and dt.is_bool(scalar):
        raise InvalidModule(f"{op} is not defined on bool", hint="cast to an integer first, or use and, or")
    return Binary(op, x, y)


def add(a: Operand, b: Operand) -> Expr:
    """``a + b``"""
    return binary("add", a, b)


def sub(a: Operand, b: Operand) -> Expr:
    """``a - b``"""
    return binary("sub", a, b)


def mul(a: Operand, b: Operand) -> Expr:
    """``a * b``"""
    return binary("mul", a, b)


def div(a: Operand, b: Operand) -> Expr:
    """Float division, or integer division toward zero."""
    return binary("div", a, b)


def mod(a: Operand, b: Operand) -> Expr:
    """Integer remainder with the sign of ``a`` (C)."""
    return binary("mod", a, b)


def floordiv(a: Operand, b: Operand) -> Expr:
    """Integer division toward minus infinity."""
    return binary("floordiv", a, b)


def floormod(a: Operand, b: Operand) -> Expr:
    """Integer remainder with the sign of ``b``."""
    return binary("floormod", a, b)


def minimum(a: Operand, b: Operand) -> Expr:
    """The smaller."""
    return binary("min", a, b)


def maximum(a: Operand, b: Operand) -> Expr:
    """The larger."""
    return binary("max", a, b)


def compare(op: str, a: Operand, b: Operand) -> Expr:
    """A comparison, op one of COMPARISONS."""
    if op not in COMPARISONS:
        raise InvalidModule(f"{op!r} is not a comparison; those are {', '.join(COMPARISONS)}")
    return binary(op, a, b)


def logical_and(*conditions: Operand) -> Expr:
    """All of them, left to right; of none: true."""
    return _chain("and", conditions, empty=True)


def logical_or(*conditions: Operand) -> Expr:
    """Any of them, left to right; of none: false."""
    return _chain("or", conditions, empty=False)


def logical_not(a: Operand) -> Expr:
    """Negation of a bool."""
    return Not(condition(a, "not"))


def condition(value: Operand, what: str) -> Expr:
    """``value`` as a bool expression. Raises InvalidModule for any other dtype."""
    result = as_expr(value)
    if not dt.is_bool(result.dtype):
        raise InvalidModule(f"{what} needs a bool condition, not {result.dtype}", hint="compare first: x != 0")
    return result


def negative(a: Operand) -> Expr:
    """``-a``: the literal negated, else ``a * -1`` as TVM has it, which is exact for floats too."""
    value = as_expr(a)
    if isinstance(value, FloatImm):
        return FloatImm(-value.value, value.dtype)
    if isinstance(value, IntImm) and dt.is_signed(value.dtype):
        return const(-value.value, value.dtype)
    if dt.is_unsigned(value.dtype):
        return sub(const(0, value.dtype), value)
    return mul(value, -1)


def select(cond: Operand, true_value: Operand, false_value: Operand) -> Expr:
    """Either value by ``cond``; both may be evaluated."""
    a, b = unify(true_value, false_value, "T.Select")
    return Select(condition(cond, "T.Select"), a, b)


def if_then_else(cond: Operand, true_value: Operand, false_value: Operand) -> Expr:
    """Either value by ``cond``; only that one is evaluated."""
    a, b = unify(true_value, false_value, "T.if_then_else")
    return Call("if_then_else", (condition(cond, "T.if_then_else"), a, b), a.dtype)


def call_intrin(name: str, *args: Operand | StringImm, dtype: str | None = None) -> Expr:
    """A call of an intrinsic with its number and kind of arguments checked.

    Args:
        name: a key of INTRINSICS.
        args: Python numbers become literals of the first expression's dtype.
        dtype: the result's; needed where the intrinsic's row says ``given`` (but ``clz`` gives int32).

    Raises:
        InvalidModule: unknown name, wrong number of arguments, or a dtype outside the intrinsic's domain.
    """
    row = INTRINSICS.get(name)
    if row is None:
        raise InvalidModule(f"unknown intrinsic {name!r}")
    if row.arity not in (-1, len(args)):
        raise InvalidModule(f"{name} takes {row.arity} arguments, not {len(args)}")
    if name == "if_then_else":
        return if_then_else(*args)
    exprs = _unified_arguments(row, args)
    if exprs and name in _ROUNDING and (dt.is_int(exprs[0].dtype) or dt.is_bool(exprs[0].dtype)):
        return exprs[0]
    _check_domain(row, exprs)
    return Call(name, exprs, dtype if dtype is not None else result_dtype(row, exprs))


def result_dtype(row: Intrinsic, args: tuple[Expr, ...]) -> str:
    """The dtype a call gives, from its row and arguments. Raises InvalidModule where only the call could say."""
    lanes = max((dt.lanes_of(a.dtype) for a in args), default=1)
    if row.result == "same":
        return args[0].dtype
    if row.result == "second":
        return args[1].dtype
    if row.result == "bool":
        return dt.with_lanes("bool", lanes)
    if row.result == "void":
        return "int32"
    if row.name == "clz":
        return dt.with_lanes("int32", lanes)
    if row.name == "address_of":
        return "handle"
    raise InvalidModule(f"{row.name} needs the dtype of its result", hint=f'as in T.{row.name}("float32", …)')


def _default_dtype(value: bool | int | float) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, float):
        return "float32"
    low, high = dt.int_range("int32")
    return "int32" if low <= value <= high else "int64"


def _adopt(value: bool | int | float, dtype: str) -> Expr:
    """A Python number beside an expression of ``dtype``: of its dtype, if that can hold such a number at all."""
    scalar = dt.scalar_of(dtype)
    if isinstance(value, bool) or scalar in ("bool", "handle"):
        return const(value)
    if isinstance(value, float) and not dt.is_float(scalar):
        return const(value)
    return const(value, scalar)


def _chain(op: str, operands: tuple[Operand, ...], *, empty: bool) -> Expr:
    if not operands:
        return const(empty)
    result = condition(operands[0], op)
    for operand in operands[1:]:
        result = binary(op, result, operand)
    return result


def _unified_arguments(row: Intrinsic, args: tuple[Operand | StringImm, ...]) -> tuple[Expr, ...]:
    if row.name in ("fma", "pow", "atan2", "fmod", "hypot", "copysign", "nextafter"):
        first: Operand = args[0]
        for other in args[1:]:
            first = unify(first, other, row.name)[0]
        return tuple(unify(a, first, row.name)[0] for a in args)
    return tuple(as_expr(a) for a in args)


def _check_domain(row: Intrinsic, args: tuple[Expr, ...]) -> None:
    if row.domain == "any" or not args:
        return
    dtype = args[0].dtype
    if dtype == "handle":
        raise InvalidModule(f"{row.name} is not defined on handles")
    fits = {
        "float": dt.is_float(dtype),
        "int": dt.is_int(dtype),
        "number": dt.is_float(dtype) or dt.is_int(dtype),
    }[row.domain]
    if not fits:
        wanted, example = {
            "float": ("a float", "float32"),
            "int": ("an integer", "int32"),
            "number": ("a number", "int32"),
        }[row.domain]
        raise InvalidModule(f"{row.name} needs {wanted}, not {dtype}", hint=f'cast it first: T.Cast("{example}", x)')
