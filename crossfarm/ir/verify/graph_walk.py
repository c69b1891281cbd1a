"""Brings the nodes of a graph function to their rules, in the order in which they run, with what is in scope there.

Branches are walked by recursion: the rule nesting-depth, which comes first, bounds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.expr import Binding, Conditional, Function, GraphExpr, GraphVar, MatchCast, Seq
from crossfarm.ir.graph.types import TYPES, ShapeType, TensorType, TupleType, Type
from crossfarm.ir.module import IRModule
from crossfarm.ir.schema import BY_CLASS, children
from crossfarm.ir.verify.graph_scope import GraphScope
from crossfarm.ir.verify.rule import RULES, apply_rules, fail
from crossfarm.ir.verify.walk import check_types, verify_expressions
from crossfarm.ir.visitor import make_room


def verify_graph_function(mod: IRModule, name: str, func: Function) -> None:
    """All rules on one graph function. Raises VerifyError."""
    make_room()
    check_types(name, [*func.params, func.attrs, func.body, func.result])
    for rule in ("graph-body", "graph-parameters", "function-target"):  # what the first two say cannot be printed
        problem = RULES[rule].check(func, None)
        if problem is not None:
            fail(RULES[rule], problem, name)
    _Walk(GraphScope(name, functions=mod.functions, pure=func.pure)).run(func)


def verify_graph_calls(mod: IRModule) -> None:
    """Which graph functions call which. Raises VerifyError."""
    problem = RULES["no-recursion"].check(mod, None)
    if problem is not None:
        fail(RULES["no-recursion"], problem, "")


class _Walk:
    def __init__(self, scope: GraphScope) -> None:
        self.scope = scope

    def run(self, func: Function) -> None:
        for param in func.params:
            self._define_sizes(param.type)
        for param in func.params:
            self._bind(param)
        self._numbers(func.attrs)
        self._seq(func.body)
        self._type(func.result)
        self._check("result-type", func)

    def _seq(self, seq: Seq) -> None:
        pure = self.scope.pure
        for block in seq.blocks:
            apply_rules(block, self.scope)
            self.scope.pure = pure or block.dataflow
            for binding in block.bindings:
                self._binding(binding)
        self.scope.pure = pure
        self._value(seq.result)
        apply_rules(seq, self.scope)

    def _binding(self, binding: Binding | MatchCast) -> None:
        self._value(binding.value)
        if isinstance(binding, MatchCast):
            self._define_sizes(binding.type)
            self._type(binding.type)
        apply_rules(binding, self.scope)
        self._bind(binding.var)

    def _bind(self, var: GraphVar) -> None:
        apply_rules(var, self.scope)
        self._type(var.type)
        self.scope.bind(var)

    def _value(self, value: GraphExpr) -> None:
        """A value after what it is made of."""
        if isinstance(value, GraphVar):
            self._check("value-defined", value)
            return
        for operand in visit.operands(value):
            self._value(operand)
        if isinstance(value, Conditional):
            for branch in (value.then, value.other):
                self._branch(branch)
        for label, child in children(value):
            if isinstance(child, TYPES):
                self._type(child)
            elif isinstance(child, Expr) or label == "attrs":
                self._numbers(child)
        apply_rules(value, self.scope)

    def _branch(self, branch: Seq) -> None:
        """A branch: what it defines is gone after it."""
        values, sizes = set(self.scope.values), set(self.scope.variables)
        self._seq(branch)
        self.scope.values, self.scope.variables = values, sizes

    def _define_sizes(self, kind: Type) -> None:
        """Bare dimensions that are not defined yet."""
        match kind:
            case TensorType(shape=values) | ShapeType(values=values):
                for dim in values:
                    if isinstance(dim, Var) and dim not in self.scope.variables:
                        self.scope.define(dim)
            case TupleType(fields=fields):
                for field in fields:
                    self._define_sizes(field)

    def _type(self, kind: Type) -> None:
        apply_rules(kind, self.scope)
        for _, child in children(kind):
            if isinstance(child, TYPES):
                self._type(child)
            else:
                self._numbers(child)

    def _numbers(self, value: Any) -> None:
        """The expressions in an attribute's value, or one on its own."""
        found: list[Any] = []
        stack = [value]
        while stack:
            current = stack.pop()
            if type(current) in BY_CLASS:
                found.append(current)
            else:
                stack.extend(child for _, child in children(current))
        self._expressions(found)

    def _expressions(self, exprs: Iterable[Expr]) -> None:
        for e in exprs:
            self._check("size-defined", e)
            verify_expressions((e,), self.scope)

    def _check(self, name: str, node: Any) -> None:
        problem = RULES[name].check(node, self.scope)
        if problem is not None:
            fail(RULES[name], problem, self.scope.function, node)
