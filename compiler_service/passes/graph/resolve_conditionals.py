"""Graph functions without branches, which is what devices run: all calls of theirs are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.graph.immediate import is_immediate
from compiler_service.passes.graph.rewrite import DIVISIONS, map_graph_functions
from crossfarm.ir import dtype as dt
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.expr import (
    ATOMS,
    Binding,
    CallTIR,
    Conditional,
    Constant,
    GraphExpr,
    GraphVar,
    OperatorCall,
    Seq,
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.graph.infer import same_type, type_of
from crossfarm.ir.graph.types import TensorType, TupleType, Type
from crossfarm.ir.graph.visit import AnyBinding
from crossfarm.ir.module import IRModule

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class ResolveConditionals:
    """An ``if`` on a constant becomes the branch that is taken. Of any other, both branches are computed, and ``where``
    chooses among their results.

    That is done where both are of provably equal types and made of operators and tensor programs that cannot fail: a
    division of integers may be just what the condition guards. Others stay.
    """

    name: ClassVar[str] = "resolve_conditionals"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_graph_functions(module, lambda _, function: _Resolver().mutate_function(function))


class _Resolver(visit.GraphMutator):
    def mutate_binding(self, binding: AnyBinding) -> Sequence[AnyBinding]:
        if not isinstance(binding, Binding) or not isinstance(binding.value, Conditional):
            return super().mutate_binding(binding)
        found = self.mutate_children(binding.value)
        assert isinstance(found, Conditional)
        condition = found.condition
        if isinstance(condition, Constant) and is_immediate(condition.data):
            taken = found.then if condition.data.array.reshape(-1)[0] else found.other
            return [*visit.bindings(taken), *self._named(binding.var, taken.result)]
        kind = type_of(found.then.result, {})
        if not (_cannot_fail(found.then) and _cannot_fail(found.other)):
            return [binding if found is binding.value else Binding(binding.var, found)]
        if not same_type(kind, type_of(found.other.result, {})) or not _of_tensors(kind):
            return [binding if found is binding.value else Binding(binding.var, found)]
        made = [*visit.bindings(found.then), *visit.bindings(found.other)]
        value = _chosen(condition, found.then.result, found.other.result, kind, made, binding.var.name)
        return [*made, *self._named(binding.var, value)]

    def _named(self, var: GraphVar, value: GraphExpr) -> list[AnyBinding]:
        """``var`` bound to ``value``; nothing where ``value`` can stand for it."""
        if isinstance(value, ATOMS):
            self.variables[var] = value
            return []
        return [Binding(var, value)]


def _chosen(
    condition: GraphExpr, then: GraphExpr, other: GraphExpr, kind: Type, made: list[AnyBinding], name: str
) -> GraphExpr:
    """One of two values; what has to be bound for it is added to ``made``."""
    if isinstance(kind, TensorType):
        return OperatorCall("where", (condition, then, other))
    assert isinstance(kind, TupleType)
    fields: list[GraphExpr] = []
    for n, field in enumerate(kind.fields):
        parts = [_item(value, n, field, made, name) for value in (then, other)]
        value = _chosen(condition, parts[0], parts[1], field, made, f"{name}_{n}")
        fields.append(_bound(value, field, made, f"{name}_{n}"))
    return TupleExpr(tuple(fields))


def _item(value: GraphExpr, index: int, kind: Type, made: list[AnyBinding], name: str) -> GraphExpr:
    if isinstance(value, TupleExpr):
        return value.fields[index]
    return _bound(TupleItem(value, index), kind, made, f"{name}_{index}")


def _bound(value: GraphExpr, kind: Type, made: list[AnyBinding], name: str) -> GraphVar:
    var = GraphVar(name, kind)
    made.append(Binding(var, value))
    return var


def _of_tensors(kind: Type) -> bool:
    return all(map(_of_tensors, kind.fields)) if isinstance(kind, TupleType) else isinstance(kind, TensorType)


def _cannot_fail(branch: Seq) -> bool:
    """Whether a branch may be computed though it is not taken."""
    for binding in visit.bindings(branch):
        value = binding.value
        if not isinstance(binding, Binding) or not isinstance(value, OperatorCall | CallTIR | TupleExpr | TupleItem):
            return False
        kind = binding.var.type
        divides = isinstance(value, OperatorCall) and value.op in DIVISIONS
        if divides and not (isinstance(kind, TensorType) and dt.is_float(kind.dtype)):
            return False
    return True
