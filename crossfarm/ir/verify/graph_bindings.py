"""Rules about graph functions, their variables, bindings and blocks."""

from __future__ import annotations

from crossfarm.errors import InvalidModule
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.expr import (
    ATOMS,
    Binding,
    BindingBlock,
    Conditional,
    Function,
    GraphExpr,
    GraphVar,
    MatchCast,
    Seq,
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.graph.infer import same_type, type_of
from crossfarm.ir.graph.types import PrimType, ShapeType, TensorType, TupleType, Type
from crossfarm.ir.verify.graph_scope import GraphScope
from crossfarm.ir.verify.rule import rule


@rule("graph-parameters", hint="a parameter is a GraphVar with a name of its own")
def graph_parameters(func: Function, scope: GraphScope) -> str | None:
    """Parameters are variables, each there once, with names that tell them apart."""
    names: set[str] = set()
    for param in func.params:
        if not isinstance(param, GraphVar):
            return f"a parameter is a {type(param).__name__}"
        if param.name in names:
            return f"two parameters are called {param.name!r}"
        names.add(param.name)
    return None


@rule("graph-body", hint="make functions with crossfarm.ir.graph.builder")
def graph_body(func: Function, scope: GraphScope) -> str | None:
    """A function's body is a Seq, and its result one of the four types."""
    if not isinstance(func.body, Seq):
        return f"the body is a {type(func.body).__name__}, not a Seq"
    if not isinstance(func.result, TensorType | TupleType | ShapeType | PrimType):
        return f"the result is a {type(func.result).__name__}, not a type"
    return None


@rule("graph-names", GraphVar, hint="a name is text; the printer makes it a Python name that is unique")
def graph_names(var: GraphVar, scope: GraphScope) -> str | None:
    """What a function defines has a name that can be written."""
    if not var.name:
        return "a variable has no name"
    return None if var.name.isprintable() else f"the variable {var.name!r} has a name that cannot be printed"


@rule("value-defined", hint="bind it before, in the same function and not inside a branch")
def value_defined(var: GraphVar, scope: GraphScope) -> str | None:
    """A variable is used only after it is bound, and in a branch only what is bound there is lost at its end."""
    if var in scope.values:
        return None
    where = "outside the branch that binds it" if var in scope.once_values else "before it is bound"
    return f"{var.name} is used {where}"


@rule("value-once", Binding, MatchCast, hint="give each binding a variable of its own; names may repeat")
def value_once(binding: Binding | MatchCast, scope: GraphScope) -> str | None:
    """A variable is bound in one place of a function."""
    return f"{binding.var.name} is bound a second time" if binding.var in scope.once_values else None


@rule("value-type", Binding, hint="let crossfarm.ir.graph.builder bind it, which finds the type")
def value_type(binding: Binding, scope: GraphScope) -> str | None:
    """A binding's variable has the type of its value."""
    return _type_problem(f"{binding.var.name} is", binding.var.type, binding.value, scope)


@rule("cast-type", MatchCast, hint="a match_cast tells sizes; it changes neither dtype nor rank")
def cast_type(cast: MatchCast, scope: GraphScope) -> str | None:
    """A match_cast's variable has its type, which the value may turn out to have."""
    if not same_type(cast.var.type, cast.type):
        return f"{cast.var.name} is {type_text(cast.var.type)}, the match_cast says {type_text(cast.type)}"
    given = type_of(cast.value, scope.functions)
    return None if _may_be(given, cast.type) else f"{type_text(given)} is never {type_text(cast.type)}"


@rule("result-type", hint="let crossfarm.ir.graph.builder make the function, which finds the type")
def result_type(func: Function, scope: GraphScope) -> str | None:
    """A function's result has the type of what its body ends in."""
    return _type_problem("the result is said to be", func.result, func.body.result, scope)


@rule("block-not-empty", BindingBlock, hint="leave the block out")
def block_not_empty(block: BindingBlock, scope: GraphScope) -> str | None:
    """A block has bindings."""
    return None if block.bindings else "a block without bindings"


@rule("atomic-result", Seq, TupleItem, MatchCast, hint="bind it to a variable first")
def atomic_result(node: Seq | TupleItem | MatchCast, scope: GraphScope) -> str | None:
    """A body or branch ends in an atomic value; what has an item taken, or is cast, is one too."""
    value = node.result if isinstance(node, Seq) else node.value
    return None if is_atomic(value) else f"a {type(value).__name__} stands where a variable belongs"


@rule("condition", Conditional, hint="compare, or cast to bool, and reduce it to a scalar first")
def condition(node: Conditional, scope: GraphScope) -> str | None:
    """A condition is an atomic bool scalar."""
    if not is_atomic(node.condition):
        return f"the condition is a {type(node.condition).__name__}, not a variable"
    kind = type_of(node.condition, scope.functions)
    if isinstance(kind, TensorType) and not kind.shape and kind.dtype == "bool":
        return None
    return f"the condition is {type_text(kind)}, not a bool scalar"


@rule("branches-agree", Conditional, hint="cast one of them, or match_cast both to one shape")
def branches_agree(node: Conditional, scope: GraphScope) -> str | None:
    """Both branches of a conditional give one type."""
    then, other = (type_of(branch.result, scope.functions) for branch in (node.then, node.other))
    return None if same_type(then, other) else f"one branch gives {type_text(then)}, the other {type_text(other)}"


def is_atomic(value: GraphExpr) -> bool:
    """True for what may be an argument: a variable, constant, shape or number, or a tuple of such."""
    return all(map(is_atomic, value.fields)) if isinstance(value, TupleExpr) else isinstance(value, ATOMS)


def type_text(kind: Type) -> str:
    """For messages: as ``float32(n, 4)``."""
    match kind:
        case TensorType(shape=shape, dtype=dtype):
            return f"{dtype}{dims.text(shape)}"
        case TupleType(fields=fields):
            return f"a tuple of {', '.join(map(type_text, fields)) or 'nothing'}"
        case ShapeType(values=values):
            return f"the shape {dims.text(values)}"
        case PrimType(dtype=dtype):
            return f"a number of {dtype}"


def _type_problem(what: str, said: Type, value: GraphExpr, scope: GraphScope) -> str | None:
    try:
        found = type_of(value, scope.functions)
    except InvalidModule as failure:
        return failure.message
    return None if same_type(said, found) else f"{what} {type_text(said)}, its value {type_text(found)}"


def _may_be(given: Type, wanted: Type) -> bool:
    """False where no value of the one type is of the other."""
    match given, wanted:
        case TensorType(), TensorType():
            return given.dtype == wanted.dtype and _may_be_shape(given.shape, wanted.shape)
        case ShapeType(), ShapeType():
            return _may_be_shape(given.values, wanted.values)
        case TupleType(), TupleType():
            return len(given.fields) == len(wanted.fields) and all(map(_may_be, given.fields, wanted.fields))
        case PrimType(), PrimType():
            return given.dtype == wanted.dtype
        case _:
            return False


def _may_be_shape(given: tuple[dims.Dim, ...], wanted: tuple[dims.Dim, ...]) -> bool:
    if len(given) != len(wanted):
        return False
    known = ((dims.constant(a), dims.constant(b)) for a, b in zip(given, wanted))
    return all(a is None or b is None or a == b for a, b in known)
