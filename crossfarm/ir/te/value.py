"""Values: expressions with Python's operators, and the functions of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from crossfarm.errors import InvalidModule
from crossfarm.ir import ops
from crossfarm.ir.expr import Expr, FloatImm, IntImm, Let, Var
from crossfarm.ir.printer_expr import ExprPrinter
from crossfarm.ir.printer_names import Names

__all__ = [
    "Value", "abs", "acos", "acosh", "all", "any", "asin", "asinh", "atan", "atan2", "atanh", "call", "cast", "ceil",
    "const", "copysign", "cos", "cosh", "erf", "exp", "exp2", "exp10", "floor", "fma", "fmod", "hypot", "if_then_else",
    "isfinite", "isinf", "isnan", "let", "log", "log1p", "log2", "log10", "logical_not", "maximum", "minimum",
    "nearbyint", "pow", "round", "rsqrt", "select", "sigmoid", "sin", "sinh", "sqrt", "tan", "tanh", "trunc", "var",
]  # fmt: skip


class Value:
    """An expression in a ``compute``: ``+ - * / // % << >> & | ^ ~`` and comparisons give another, dtypes unified as in
    ``crossfarm.ir.ops``.

    ``/`` is for floats; integers have ``//`` and ``%``, which round down. ``&``, ``|`` and ``~`` on bool are logical.

    Attributes:
        expr: the node of the IR that it stands for.
    """

    __hash__ = None  # type: ignore[assignment]  # == makes a Value

    def __init__(self, expr: Expr) -> None:
        self.expr = expr

    @property
    def dtype(self) -> str:
        return self.expr.dtype

    def astype(self, dtype: str) -> Value:
        """This number in another dtype, C rules."""
        return Value(ops.cast(self.expr, dtype))

    def __repr__(self) -> str:
        return f"<te value {ExprPrinter(Names()).expr(self.expr)}: {self.dtype}>"

    def __bool__(self) -> NoReturn:
        raise InvalidModule(
            "a te value is known only when the program runs",
            hint="write te.if_then_else(condition, a, b) for a choice, te.all and te.any for 'and' and 'or'",
        )

    def __iter__(self) -> NoReturn:
        raise InvalidModule("a te value is one number and has no parts")

    def __add__(self, other: Operand) -> Value:
        return _binary("add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return _binary("add", other, self)

    def __sub__(self, other: Operand) -> Value:
        return _binary("sub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return _binary("sub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return _binary("mul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return _binary("mul", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return _true_division(self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return _true_division(other, self)

    def __floordiv__(self, other: Operand) -> Value:
        return _binary("floordiv", self, other)

    def __rfloordiv__(self, other: Operand) -> Value:
        return _binary("floordiv", other, self)

    def __mod__(self, other: Operand) -> Value:
        return _binary("floormod", self, other)

    def __rmod__(self, other: Operand) -> Value:
        return _binary("floormod", other, self)

    def __lshift__(self, other: Operand) -> Value:
        return _binary("shl", self, other)

    def __rshift__(self, other: Operand) -> Value:
        return _binary("shr", self, other)

    def __and__(self, other: Operand) -> Value:
        return _binary("and" if self.dtype == "bool" else "bitand", self, other)

    def __or__(self, other: Operand) -> Value:
        return _binary("or" if self.dtype == "bool" else "bitor", self, other)

    def __xor__(self, other: Operand) -> Value:
        return _binary("bitxor", self, other)

    def __invert__(self) -> Value:
        return logical_not(self) if self.dtype == "bool" else Value(ops.call_intrin("bitwise_not", self.expr))

    def __neg__(self) -> Value:
        return Value(ops.negative(self.expr))

    def __lt__(self, other: Operand) -> Value:
        return _binary("lt", self, other)

    def __le__(self, other: Operand) -> Value:
        return _binary("le", self, other)

    def __gt__(self, other: Operand) -> Value:
        return _binary("gt", self, other)

    def __ge__(self, other: Operand) -> Value:
        return _binary("ge", self, other)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        return _binary("eq", self, _operand(other))

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        return _binary("ne", self, _operand(other))


#: What every function takes: a value, an expression, or a Python number that adopts the dtype beside it.
Operand = Value | Expr | bool | int | float


def var(name: str = "n", dtype: str = "int64") -> Value:
    """A size that is known when the program is called: a dimension of a tensor, or a scalar argument."""
    return Value(Var(name, dtype))


def const(value: bool | int | float, dtype: str | None = None) -> Value:
    """A literal. Raises InvalidModule when the value does not fit the dtype."""
    return Value(ops.const(value, dtype))


def cast(value: Operand, dtype: str) -> Value:
    """``value`` in another dtype, C rules."""
    return Value(ops.cast(unwrap(value), dtype))


def select(condition: Operand, if_true: Operand, if_false: Operand) -> Value:
    """Either value; both may be computed."""
    return Value(ops.select(unwrap(condition), unwrap(if_true), unwrap(if_false)))


def if_then_else(condition: Operand, if_true: Operand, if_false: Operand) -> Value:
    """Either value; only that one is computed, so the condition may guard an index."""
    return Value(ops.if_then_else(unwrap(condition), unwrap(if_true), unwrap(if_false)))


def let(value: Operand, body: Callable[[Value], Operand], name: str = "t") -> Value:
    """``body(value)`` with the value computed once, however often the body uses it."""
    expr = ops.as_expr(unwrap(value))
    if isinstance(expr, (Var, IntImm, FloatImm)):
        return Value(ops.as_expr(unwrap(body(Value(expr)))))
    var = Var(name, expr.dtype)
    return Value(Let(var, expr, ops.as_expr(unwrap(body(Value(var))))))


def maximum(a: Operand, b: Operand) -> Value:
    """The larger of two values (``te.max`` reduces along an axis)."""
    return _binary("max", a, b)


def minimum(a: Operand, b: Operand) -> Value:
    """The smaller of two values (``te.min`` reduces along an axis)."""
    return _binary("min", a, b)


def all(*conditions: Operand) -> Value:
    """Whether all conditions hold; later ones are looked at only while earlier ones do."""
    return Value(ops.logical_and(*map(unwrap, conditions)))


def any(*conditions: Operand) -> Value:
    """Whether one of the conditions holds; later ones are looked at only while earlier ones do not."""
    return Value(ops.logical_or(*map(unwrap, conditions)))


def logical_not(condition: Operand) -> Value:
    """Whether it does not hold."""
    return Value(ops.logical_not(unwrap(condition)))


def call(name: str, *args: Operand, dtype: str | None = None) -> Value:
    """Any intrinsic of ``crossfarm.ir.intrinsics``. Raises InvalidModule where it does not fit the arguments."""
    return Value(ops.call_intrin(name, *map(unwrap, args), dtype=dtype))


def unwrap(value: object) -> ops.Operand:
    """The IR's expression, or the Python number. Raises InvalidModule for anything else."""
    if isinstance(value, Value):
        return value.expr
    if isinstance(value, (Expr, bool, int, float)):
        return value
    raise InvalidModule(
        f"a te value or a number is needed here, not {type(value).__name__}",
        hint="index a tensor down to one element: A[i, j]",
    )


class _Intrinsic:
    """An intrinsic as a function of values."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self.__doc__ = f"The intrinsic ``{name}``."

    def __call__(self, *args: Operand) -> Value:
        return call(self.__name__, *args)

    def __repr__(self) -> str:
        return f"<te function {self.__name__}>"


abs = _Intrinsic("abs")
acos, acosh, asin, asinh = _Intrinsic("acos"), _Intrinsic("acosh"), _Intrinsic("asin"), _Intrinsic("asinh")
atan, atan2, atanh = _Intrinsic("atan"), _Intrinsic("atan2"), _Intrinsic("atanh")
ceil, copysign, cos, cosh = _Intrinsic("ceil"), _Intrinsic("copysign"), _Intrinsic("cos"), _Intrinsic("cosh")
erf, exp, exp10, exp2 = _Intrinsic("erf"), _Intrinsic("exp"), _Intrinsic("exp10"), _Intrinsic("exp2")
floor, fma, fmod, hypot = _Intrinsic("floor"), _Intrinsic("fma"), _Intrinsic("fmod"), _Intrinsic("hypot")
isfinite, isinf, isnan = _Intrinsic("isfinite"), _Intrinsic("isinf"), _Intrinsic("isnan")
log, log10, log1p, log2 = _Intrinsic("log"), _Intrinsic("log10"), _Intrinsic("log1p"), _Intrinsic("log2")
nearbyint, pow, round, rsqrt = _Intrinsic("nearbyint"), _Intrinsic("pow"), _Intrinsic("round"), _Intrinsic("rsqrt")
sigmoid, sin, sinh, sqrt = _Intrinsic("sigmoid"), _Intrinsic("sin"), _Intrinsic("sinh"), _Intrinsic("sqrt")
tan, tanh, trunc = _Intrinsic("tan"), _Intrinsic("tanh"), _Intrinsic("trunc")


def _operand(value: object) -> Operand:
    return Value(ops.as_expr(unwrap(value))) if isinstance(value, Value) else unwrap(value)


def _binary(op: str, a: Operand, b: Operand) -> Value:
    return Value(ops.binary(op, unwrap(a), unwrap(b)))


def _true_division(a: Operand, b: Operand) -> Value:
    x, y = ops.unify(unwrap(a), unwrap(b), "/")
    if not x.dtype.startswith(("float", "bfloat")):
        raise InvalidModule(f"/ of two {x.dtype}", hint="write // to round down, or cast to a float first")
    return Value(ops.div(x, y))
