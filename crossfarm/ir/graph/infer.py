"""The type of an expression of a graph function, from the types of what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossfarm.errors import InvalidModule
from crossfarm.ir.expr import Expr, IntImm, Var
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.expr import (
    CallPacked,
    CallTIR,
    Conditional,
    Constant,
    Function,
    FunctionCall,
    GraphExpr,
    GraphVar,
    OperatorCall,
    PrimValue,
    ShapeExpr,
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.graph.types import PrimType, ShapeType, TensorType, TupleType, Type
from crossfarm.ir.visitor import substitute


def type_of(expr: GraphExpr, functions: Mapping[str, object]) -> Type:
    """What ``expr`` is, in terms of the symbolic sizes around it.

    Args:
        functions: of the module, for calls of graph functions.

    Raises:
        InvalidModule: operands do not fit together, or a function is not there; the message names them.
    """
    match expr:
        case GraphVar():
            return expr.type
        case Constant(data=data):
            return TensorType(dims.dims(data.shape), data.dtype)
        case ShapeExpr(values=values):
            return ShapeType(values)
        case PrimValue(value=value):
            return PrimType(value.dtype)
        case TupleExpr(fields=fields):
            return TupleType(tuple(type_of(f, functions) for f in fields))
        case TupleItem():
            return _item(expr, functions)
        case OperatorCall():
            return _one_or_tuple(_results(expr, functions))
        case CallTIR(out=out) | CallPacked(out=out):
            return _one_or_tuple(out)
        case FunctionCall():
            return _call(expr, functions)
        case Conditional():
            return type_of(expr.then.result, functions)
        case _:
            raise AssertionError(type(expr).__name__)


def same_type(a: Type, b: Type) -> bool:
    """True where both are provably the same; False says nothing of symbolic sizes."""
    match a, b:
        case TensorType(), TensorType():
            return a.dtype == b.dtype and dims.same_shape(a.shape, b.shape)
        case TupleType(), TupleType():
            return len(a.fields) == len(b.fields) and all(same_type(x, y) for x, y in zip(a.fields, b.fields))
        case ShapeType(), ShapeType():
            return dims.same_shape(a.values, b.values)
        case PrimType(), PrimType():
            return a.dtype == b.dtype
        case _:
            return False


def tensor_types(call: OperatorCall, functions: Mapping[str, object]) -> list[TensorType]:
    """Types of an operator call's arguments. Raises InvalidModule where one is no tensor."""
    found = []
    for arg in call.args:
        kind = type_of(arg, functions)
        if not isinstance(kind, TensorType):
            raise InvalidModule(f"operator {call.op} takes tensors, not a {type(kind).__name__}")
        found.append(kind)
    return found


def _results(call: OperatorCall, functions: Mapping[str, object]) -> Sequence[TensorType]:
    row = operators.get(call.op)
    row.check_inputs(len(call.args))
    return row.infer(tensor_types(call, functions), row.complete(call.attrs))


def _one_or_tuple(types: Sequence[TensorType]) -> Type:
    return types[0] if len(types) == 1 else TupleType(tuple(types))


def _item(expr: TupleItem, functions: Mapping[str, object]) -> Type:
    kind = type_of(expr.value, functions)
    if not isinstance(kind, TupleType):
        raise InvalidModule(f"only tuples have items, not a {type(kind).__name__}")
    if not 0 <= expr.index < len(kind.fields):
        raise InvalidModule(f"a tuple of {len(kind.fields)} has no item {expr.index}")
    return kind.fields[expr.index]


def _call(expr: FunctionCall, functions: Mapping[str, object]) -> Type:
    callee = functions.get(expr.function)
    if not isinstance(callee, Function):
        raise InvalidModule(f"the module has no graph function {expr.function!r}")
    if len(callee.params) != len(expr.args):
        raise InvalidModule(f"graph function {expr.function!r} takes {len(callee.params)} values, not {len(expr.args)}")
    sizes: dict[Var, Expr] = {}
    for param, arg in zip(callee.params, expr.args):
        _match(param.type, type_of(arg, functions), sizes, expr.function)
    return replace_sizes(callee.result, sizes)


def _match(param: Type, given: Type, sizes: dict[Var, Expr], function: str) -> None:
    """Defines the callee's sizes by what it is given."""
    if isinstance(param, TupleType) and isinstance(given, TupleType) and len(param.fields) == len(given.fields):
        for field, value in zip(param.fields, given.fields):
            _match(field, value, sizes, function)
        return
    if not isinstance(param, TensorType) or not isinstance(given, TensorType):
        if type(param) is not type(given):
            raise InvalidModule(
                f"graph function {function!r} takes a {type(param).__name__}, not a {type(given).__name__}"
            )
        return
    if param.dtype != given.dtype or param.ndim != given.ndim:
        raise InvalidModule(
            f"graph function {function!r} takes {param.dtype}{dims.text(param.shape)}, not "
            f"{given.dtype}{dims.text(given.shape)}"
        )
    for a, b in zip(param.shape, given.shape):
        if isinstance(a, Var) and a not in sizes:
            sizes[a] = b
        elif isinstance(a, IntImm) and not dims.same(a, b):
            raise InvalidModule(
                f"graph function {function!r} takes shape {dims.text(param.shape)}, not {dims.text(given.shape)}"
            )


def replace_sizes(kind: Type, sizes: Mapping[Var, Expr]) -> Type:
    """The type with symbolic sizes replaced."""
    match kind:
        case TensorType():
            return TensorType(tuple(dims.dim(substitute(d, dict(sizes))) for d in kind.shape), kind.dtype)
        case TupleType():
            return TupleType(tuple(replace_sizes(f, sizes) for f in kind.fields))
        case ShapeType():
            return ShapeType(tuple(dims.dim(substitute(d, dict(sizes))) for d in kind.values))
        case _:
            return kind
