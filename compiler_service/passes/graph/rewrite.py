"""How passes go over graph functions: one binding after the other, each made anew or kept.

A function's blocks become one block in which nothing has an effect beyond its value: operators have none, and calls of
the system's functions are refused before (``crossfarm.ir.graph.expr.CallPacked`` is read and printed, never built).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from crossfarm.ir.graph.expr import (
    ATOMS,
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
    Seq,
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.graph.infer import type_of
from crossfarm.ir.module import AnyFunction, IRModule

AnyBinding = Binding | MatchCast
Replaced = Mapping[GraphVar, GraphExpr]


def map_graph_functions(module: IRModule, transform: Callable[[str, Function], Function]) -> IRModule:
    """The module with ``transform(name, function)`` applied to each graph function; the same module if none changed."""
    functions = {name: transform(name, f) if isinstance(f, Function) else f for name, f in module.functions.items()}
    if all(functions[name] is f for name, f in module.functions.items()):
        return module
    return module.with_functions(functions)


def is_primitive(function: AnyFunction) -> bool:
    """True for a group of operators that becomes one tensor program."""
    return isinstance(function, Function) and bool(function.attrs.get("primitive"))


def bindings_of(seq: Seq) -> Iterator[AnyBinding]:
    """All bindings in order."""
    for block in seq.blocks:
        yield from block.bindings


def operands(expr: GraphExpr) -> tuple[GraphExpr, ...]:
    """What ``expr`` is directly made of; branches of a Conditional are not entered."""
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


def atoms(expr: GraphExpr) -> Iterator[GraphExpr]:
    """The variables, constants, shapes and numbers that ``expr`` takes, those of branches and of tuples too."""
    if isinstance(expr, ATOMS):
        yield expr
        return
    for operand in operands(expr):
        yield from atoms(operand)
    if isinstance(expr, Conditional):
        for branch in (expr.then, expr.other):
            for binding in bindings_of(branch):
                yield from atoms(binding.value)
            yield from atoms(branch.result)


def variables(expr: GraphExpr) -> Iterator[GraphVar]:
    """The variables among ``atoms``."""
    return (a for a in atoms(expr) if isinstance(a, GraphVar))


def constants(expr: GraphExpr) -> Iterator[Constant]:
    """The constants among ``atoms``."""
    return (a for a in atoms(expr) if isinstance(a, Constant))


def with_operands(expr: GraphExpr, change: Callable[[GraphExpr], GraphExpr]) -> GraphExpr:
    """``expr`` with ``change`` applied to each atom; the same object where none changes."""
    if isinstance(expr, ATOMS):
        return change(expr)
    match expr:
        case OperatorCall(args=args) | CallTIR(args=args) | CallPacked(args=args) | FunctionCall(args=args):
            new = tuple(with_operands(a, change) for a in args)
            return expr if _same(new, args) else replace(expr, args=new)
        case TupleExpr(fields=fields):
            new = tuple(with_operands(f, change) for f in fields)
            return expr if _same(new, fields) else TupleExpr(new)
        case TupleItem(value=value):
            whole = with_operands(value, change)
            return expr if whole is value else replace(expr, value=whole)
        case Conditional():
            condition = with_operands(expr.condition, change)
            then, other = (_seq_with_operands(s, change) for s in (expr.then, expr.other))
            if condition is expr.condition and then is expr.then and other is expr.other:
                return expr
            return Conditional(condition, then, other)
        case _:
            raise AssertionError(type(expr).__name__)


def substitute_values(expr: GraphExpr, values: Replaced) -> GraphExpr:
    """``expr`` with variables replaced by what they are."""
    return with_operands(expr, lambda a: values.get(a, a) if isinstance(a, GraphVar) else a)


def _seq_with_operands(seq: Seq, change: Callable[[GraphExpr], GraphExpr]) -> Seq:
    blocks = []
    for block in seq.blocks:
        bindings = tuple(
            b if (value := with_operands(b.value, change)) is b.value else replace(b, value=value)
            for b in block.bindings
        )
        blocks.append(block if _same(bindings, block.bindings) else replace(block, bindings=bindings))
    result = with_operands(seq.result, change)
    if result is seq.result and _same(blocks, seq.blocks):
        return seq
    return Seq(tuple(blocks), result)


def _same(new: Sequence[object], old: Sequence[object]) -> bool:
    return all(a is b for a, b in zip(new, old, strict=True))


class Rewriter:
    """Makes a function's bindings anew, in order. Subclasses say in ``rewrite`` what becomes of each value.

    Attributes:
        functions: of the module.
        values: what variables that are not bound any more stand for.
        made: the binding of each variable so far.
    """

    def __init__(self, functions: Mapping[str, AnyFunction]) -> None:
        self.functions = functions
        self.values: dict[GraphVar, GraphExpr] = {}
        self.made: dict[GraphVar, AnyBinding] = {}
        self._names: set[str] = set()

    def function(self, function: Function) -> Function:
        """The function made anew; the same one where no binding changed."""
        self._names = {p.name for p in function.params} | {b.var.name for b in bindings_of(function.body)}
        before = list(bindings_of(function.body))
        for binding in before:
            self.binding(binding)
        result = self.replaced(function.body.result)
        after = list(self.made.values())
        if result is function.body.result and len(before) == len(after) and _same(after, before):
            return function
        return with_body(function, after, result)

    def binding(self, binding: AnyBinding) -> None:
        """Emits what becomes of one binding."""
        value = self.replaced(binding.value)
        if isinstance(binding, MatchCast):
            self.made[binding.var] = binding if value is binding.value else replace(binding, value=value)
            return
        new = self.rewrite(binding.var, value)
        if isinstance(new, ATOMS):
            self.values[binding.var] = new
        else:
            self.made[binding.var] = binding if new is binding.value else Binding(binding.var, new)

    def rewrite(self, var: GraphVar, value: GraphExpr) -> GraphExpr:
        """What ``var`` is bound to instead of ``value``; an atom stands for it everywhere."""
        return value

    def replaced(self, expr: GraphExpr) -> GraphExpr:
        """``expr`` in terms of what is bound now."""
        return substitute_values(expr, self.values)

    def bind(self, value: GraphExpr, label: str) -> GraphExpr:
        """A new variable for ``value``, or ``value`` itself where it is an atom."""
        if isinstance(value, ATOMS):
            return value
        var = GraphVar(self.unique(label), type_of(value, self.functions))
        self.made[var] = Binding(var, value)
        return var

    def unique(self, label: str) -> str:
        """A name that no variable of the function has."""
        name, number = label, 0
        while name in self._names:
            number += 1
            name = f"{label}_{number}"
        self._names.add(name)
        return name

    def definition(self, expr: GraphExpr) -> GraphExpr:
        """What a variable is bound to; ``expr`` itself where it is none, or a parameter."""
        if isinstance(expr, GraphVar) and isinstance(found := self.made.get(expr), Binding):
            return found.value
        return expr


def with_body(function: Function, bindings: list[AnyBinding], result: GraphExpr) -> Function:
    """The function with one block of ``bindings``."""
    return replace(function, body=Seq((BindingBlock(tuple(bindings)),) if bindings else (), result))
