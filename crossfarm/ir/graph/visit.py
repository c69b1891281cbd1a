"""Traversal of graph functions: what is in them, and rebuilding what changes while the rest is shared.

Branches of conditionals are entered: their bindings come where the conditional stands. Symbolic sizes sit in types, in
shapes and in attributes; ``sizes`` finds them, ``substitute`` replaces them everywhere at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import is_
from typing import Any, TypeVar, cast

from crossfarm.ir import visitor
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.constant import Array, ConstantData
from crossfarm.ir.graph.expr import (
    Binding,
    BindingBlock,
    CallPacked,
    CallTIR,
    Conditional,
    Constant,
    Function,
    FunctionCall,
    GraphExpr,
    GraphVar,
    MatchCast,
    OperatorCall,
    PrimValue,
    Seq,
    ShapeExpr,
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.graph.types import TYPES, ShapeType, TensorType, TupleType, Type
from crossfarm.ir.module import IRModule

#: What a block holds.
AnyBinding = Binding | MatchCast
#: What can be looked through.
GraphNode = GraphExpr | Seq | Binding | MatchCast | Function

_Sized = TypeVar("_Sized", bound=TensorType | TupleType | ShapeType | Type)


def operands(expr: GraphExpr) -> tuple[GraphExpr, ...]:
    """The expressions that ``expr`` is directly made of; a conditional's branches are no operands."""
    match expr:
        case OperatorCall(args=args) | CallTIR(args=args) | CallPacked(args=args) | FunctionCall(args=args):
            return args
        case TupleExpr(fields=fields):
            return fields
        case TupleItem(value=value):
            return (value,)
        case Conditional(condition=condition):
            return (condition,)
        case _:
            return ()


def bindings(seq: Seq) -> Iterator[AnyBinding]:
    """The bindings of a body or branch, in order, across its blocks; branches inside it are not entered."""
    for block in seq.blocks:
        yield from block.bindings


def expressions(node: GraphNode) -> Iterator[GraphExpr]:
    """Every expression in ``node`` in the order in which it runs, a conditional before its branches; uses of variables
    are expressions, their definitions are not. Nothing here recurses."""
    stack: list[GraphNode] = [node]
    while stack:
        current = stack.pop()
        below: list[GraphNode]
        match current:
            case Function(body=body):
                below = [body]
            case Seq():
                below = [*bindings(current), current.result]
            case Binding(value=value) | MatchCast(value=value):
                below = [value]
            case _:
                yield current
                below = [*operands(current)]
                if isinstance(current, Conditional):
                    below += [current.then, current.other]
        stack.extend(reversed(below))


def defined(node: Function | Seq) -> Iterator[GraphVar]:
    """The variables that ``node`` defines, branches included: parameters, then those of bindings."""
    if isinstance(node, Function):
        yield from node.params
        node = node.body
    for binding in bindings(node):
        if isinstance(binding.value, Conditional):
            yield from defined(binding.value.then)
            yield from defined(binding.value.other)
        yield binding.var


def uses(node: GraphNode) -> Counter[GraphVar]:
    """How often ``node`` reads each variable; one that is never read is not there."""
    return Counter(e for e in expressions(node) if isinstance(e, GraphVar))


def constants(node: GraphNode | IRModule) -> Iterator[Constant]:
    """Every occurrence of a constant, in order; of a module, those of all its graph functions."""
    if isinstance(node, IRModule):
        for function in node.graph_functions.values():
            yield from constants(function)
        return
    yield from (e for e in expressions(node) if isinstance(e, Constant))


def sizes(node: GraphNode | Type) -> tuple[Var, ...]:
    """The variables of expressions that ``node`` mentions, each once, in the order in which they are met: sizes in the
    types of what it defines, and those in shapes, results and attributes of calls."""
    found: dict[Var, None] = {}
    for e in _scalars(node):
        found.update((part, None) for part in visitor.walk(e) if isinstance(part, Var))
    return tuple(found)


def _scalars(node: Any) -> Iterator[Expr]:
    """The expressions over numbers in ``node``, uses of variables left out: their types belong to definitions."""
    if isinstance(node, TYPES):
        yield from _of_type(node)
        return
    if isinstance(node, Function | Seq):
        for var in defined(node):
            yield from _of_type(var.type)
    elif isinstance(node, Binding | MatchCast):
        yield from _of_type(node.var.type)
    if isinstance(node, Function):
        yield from _of_type(node.result)
        yield from _in_data(node.attrs)
    if isinstance(node, MatchCast):
        yield from _of_type(node.type)
    for e in expressions(node):
        match e:
            case ShapeExpr(values=values):
                yield from values
            case PrimValue(value=value):
                yield value
            case OperatorCall(attrs=attrs):
                yield from _in_data(attrs)
            case CallTIR() | CallPacked():
                for kind in e.out:
                    yield from kind.shape
                if isinstance(e, CallTIR):
                    yield from e.sizes
            case Conditional():
                for branch in (e.then, e.other):
                    for var in (b.var for b in bindings(branch)):
                        yield from _of_type(var.type)


def _of_type(kind: Type) -> Iterator[Expr]:
    match kind:
        case TensorType(shape=values) | ShapeType(values=values):
            yield from values
        case TupleType(fields=fields):
            for field in fields:
                yield from _of_type(field)


def _in_data(value: Any) -> Iterator[Expr]:
    """Expressions inside attributes."""
    if isinstance(value, Expr):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _in_data(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _in_data(item)


class GraphMutator:
    """Rebuilds graph functions. What did not change is kept, so that ``is`` tells whether a pass did something.

    A subclass defines ``mutate_<ClassName>(expr)`` for kinds of expressions, ``mutate_binding`` to drop, replace or
    insert bindings, ``mutate_dim`` and ``mutate_scalar`` for what depends on symbolic sizes. A variable whose type
    changes with its dimensions becomes a new one, and its uses follow.

    Attributes:
        variables: what stands for a variable from here on, where that is not itself.
    """

    def __init__(self) -> None:
        self.variables: dict[GraphVar, GraphExpr] = {}

    def mutate(self, expr: GraphExpr) -> GraphExpr:
        """What ``expr`` becomes."""
        method = getattr(self, f"mutate_{type(expr).__name__}", None)
        return cast("GraphExpr", method(expr)) if method is not None else self.mutate_children(expr)

    def mutate_children(self, expr: GraphExpr) -> GraphExpr:
        """``expr`` with its parts mutated."""
        changed: dict[str, Any]
        match expr:
            case GraphVar():
                return self.variables.get(expr, expr)
            case OperatorCall(args=args, attrs=attrs):
                changed = {"args": self.mutate_all(args), "attrs": self.mutate_data(attrs)}
            case CallTIR(args=args, out=out, sizes=scalars):
                changed = {"args": self.mutate_all(args), "out": self._types(out), "sizes": self._scalars(scalars)}
            case CallPacked(args=args, out=out):
                changed = {"args": self.mutate_all(args), "out": self._types(out)}
            case FunctionCall(args=args):
                changed = {"args": self.mutate_all(args)}
            case TupleExpr(fields=fields):
                changed = {"fields": self.mutate_all(fields)}
            case TupleItem(value=value):
                changed = {"value": self.mutate(value)}
            case ShapeExpr(values=values):
                changed = {"values": self._dims(values)}
            case PrimValue(value=number):
                changed = {"value": self.mutate_scalar(number)}
            case Conditional(condition=condition, then=then, other=other):
                changed = {
                    "condition": self.mutate(condition),
                    "then": self.mutate_seq(then),
                    "other": self.mutate_seq(other),
                }
            case _:
                return expr
        return _replaced(expr, changed)

    def mutate_all(self, exprs: tuple[GraphExpr, ...]) -> tuple[GraphExpr, ...]:
        """Each mutated; the same tuple where none changed."""
        return _kept(exprs, [self.mutate(e) for e in exprs])

    def mutate_binding(self, binding: AnyBinding) -> Sequence[AnyBinding]:
        """What stands in the place of a binding: () drops it, several come in this order."""
        value = self.mutate(binding.value)
        var = self.mutate_definition(binding.var)
        if isinstance(binding, Binding):
            return (_replaced(binding, {"var": var, "value": value}),)
        return (_replaced(binding, {"var": var, "value": value, "type": self.mutate_type(binding.type)}),)

    def mutate_definition(self, var: GraphVar) -> GraphVar:
        """The variable that is defined where ``var`` was: the same one unless its type changes."""
        kind = self.mutate_type(var.type)
        if kind is var.type:
            return var
        new = GraphVar(var.name, kind)
        self.variables[var] = new
        return new

    def mutate_seq(self, seq: Seq) -> Seq:
        """A body or branch; blocks that became empty are left out."""
        blocks: list[BindingBlock] = []
        for block in seq.blocks:
            made = [new for old in block.bindings for new in self.mutate_binding(old)]
            kept = _kept(block.bindings, made)
            if kept is block.bindings:
                blocks.append(block)
            elif kept:
                blocks.append(replace(block, bindings=kept))
        return _replaced(seq, {"blocks": _kept(seq.blocks, blocks), "result": self.mutate(seq.result)})

    def mutate_function(self, function: Function) -> Function:
        """The function with parameters, body and result type mutated."""
        params = _kept(function.params, [self.mutate_definition(p) for p in function.params])
        body = self.mutate_seq(function.body)
        return _replaced(function, {"params": params, "body": body, "result": self.mutate_type(function.result)})

    def mutate_type(self, kind: _Sized) -> _Sized:
        """The type with its dimensions mutated."""
        match kind:
            case TensorType(shape=shape):
                return cast("_Sized", _replaced(kind, {"shape": self._dims(shape)}))
            case ShapeType(values=values):
                return cast("_Sized", _replaced(kind, {"values": self._dims(values)}))
            case TupleType(fields=fields):
                return cast("_Sized", _replaced(kind, {"fields": _kept(fields, [self.mutate_type(f) for f in fields])}))
            case _:
                return kind

    def mutate_data(self, value: Any) -> Any:
        """An attribute's value, or a mapping of them, with the expressions in it mutated."""
        if isinstance(value, Expr):
            return self.mutate_scalar(value)
        if isinstance(value, Mapping):
            made = {key: self.mutate_data(item) for key, item in value.items()}
            return value if all(map(is_, made.values(), value.values())) else made
        if isinstance(value, tuple):
            return _kept(value, [self.mutate_data(item) for item in value])
        return value

    def mutate_dim(self, value: Expr) -> Expr:
        """A dimension of a type or shape."""
        return value

    def mutate_scalar(self, value: Expr) -> Expr:
        """A number: in ``PrimValue``, in ``CallTIR.sizes``, in attributes."""
        return value

    def _dims(self, values: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return _kept(values, [self.mutate_dim(v) for v in values])

    def _scalars(self, values: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return _kept(values, [self.mutate_scalar(v) for v in values])

    def _types(self, kinds: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
        return _kept(kinds, [self.mutate_type(k) for k in kinds])


class _Substitute(GraphMutator):
    def __init__(self, variables: Mapping[GraphVar, GraphExpr], sizes: Mapping[Var, Expr]) -> None:
        super().__init__()
        self.variables.update(variables)
        self.sizes = dict(sizes)

    def mutate_dim(self, value: Expr) -> Expr:
        return self.mutate_scalar(value)

    def mutate_scalar(self, value: Expr) -> Expr:
        """In normal form where it changes: what has become a number is one, in attributes too."""
        new = visitor.substitute(value, self.sizes) if self.sizes else value
        return dims.dim(new) if new is not value and new.dtype == "int64" else new


_Whole = TypeVar("_Whole", bound=GraphExpr | Seq | Function)


def substitute(
    node: _Whole, variables: Mapping[GraphVar, GraphExpr] | None = None, sizes: Mapping[Var, Expr] | None = None
) -> _Whole:
    """``node`` with uses of variables and symbolic sizes replaced, in types, shapes and attributes too.

    Variables that ``node`` defines with a type that mentions a replaced size become new ones. Definitions are not
    replaced otherwise: give another function's body new variables first (``fresh``) where it is to stand twice.
    """
    mutator = _Substitute(variables or {}, sizes or {})
    if isinstance(node, Function):
        return cast("_Whole", mutator.mutate_function(node))
    if isinstance(node, Seq):
        return cast("_Whole", mutator.mutate_seq(node))
    return cast("_Whole", mutator.mutate(node))


def fresh(
    node: Seq, variables: Mapping[GraphVar, GraphExpr] | None = None, sizes: Mapping[Var, Expr] | None = None
) -> Seq:
    """``node`` as ``substitute`` gives it, with a new variable for each that it defines: to stand a second time."""
    return _Fresh(variables or {}, sizes or {}).mutate_seq(node)


class _Fresh(_Substitute):
    def mutate_definition(self, var: GraphVar) -> GraphVar:
        self.variables[var] = new = GraphVar(var.name, self.mutate_type(var.type))
        return new


_T = TypeVar("_T")


def _kept(old: tuple[_T, ...], new: Sequence[_T]) -> tuple[_T, ...]:
    """``old`` where ``new`` holds the same, else ``new``."""
    return old if len(old) == len(new) and all(map(is_, old, new)) else tuple(new)


def _replaced(node: Any, fields: Mapping[str, Any]) -> Any:
    """``node`` with those of ``fields`` that are not what it holds."""
    changed = {name: value for name, value in fields.items() if value is not getattr(node, name)}
    return replace(node, **changed) if changed else node


def in_blocks(found: Iterable[AnyBinding], result: GraphExpr) -> Seq:
    """A body or branch of one dataflow block."""
    made = tuple(found)
    return Seq((BindingBlock(made),) if made else (), result)


def with_contents(mod: IRModule, contents: Mapping[str, Array]) -> IRModule:
    """The module with the contents of constants that are not here, where ``contents`` has them: bytes by hex digest."""
    filled = _Filled(contents)
    functions = {n: filled.mutate_function(f) if isinstance(f, Function) else f for n, f in mod.functions.items()}
    return mod.with_functions(functions)


class _Filled(GraphMutator):
    def __init__(self, contents: Mapping[str, Array]) -> None:
        super().__init__()
        self.contents = contents

    def mutate_Constant(self, node: Constant) -> Constant:
        data = node.data
        if data.known or data.digest not in self.contents:
            return node
        content = self.contents[data.digest]
        return replace(node, data=ConstantData(data.dtype, data.shape, digest=data.digest, load=lambda: content))
