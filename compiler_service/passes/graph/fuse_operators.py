"""Operators that are better computed together become groups: private graph functions that each become one program.

A group begins with one operator, its anchor, and grows along the only value that leaves it: by the operator that reads
that value, or by several that all of them meet again in one (``x * sigmoid(x)``). What is read in between is read by
the group alone, so that nothing is computed twice, and no group can depend on itself: whatever else it takes is
computed before its last operator, and nothing that it takes can come from inside.

============  =====================================================================================================
anchor        grows by
============  =====================================================================================================
contraction   elementwise and broadcast operators on its result's shape: bias, activation, the sum with a shortcut
reduction     the same
any map       the same, further maps (pad, concat), and one reduction of the result, with what follows that
============  =====================================================================================================

Contractions choose first, then the others in program order. ``reshape`` and its kin are never in a group: alone they
are no work, within one their indices are. A transpose is alone, too: schedule rules know it as such.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.graph.immediate import is_immediate
from compiler_service.passes.graph.lower_operators import RESHAPES
from compiler_service.passes.graph.rewrite import is_primitive
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.graph import dims, operators, visit
from crossfarm.ir.graph.expr import (
    Binding,
    Function,
    FunctionCall,
    GraphExpr,
    GraphVar,
    MatchCast,
    OperatorCall,
)
from crossfarm.ir.graph.infer import replace_sizes
from crossfarm.ir.graph.operator import OperatorKind
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.naming import free_name
from crossfarm.ir.stmt import AttrValue

if TYPE_CHECKING:
    from crossfarm.target import Target

#: Most operators of a group: what is computed in one place must fit its registers.
MOST_OPERATORS = 16
#: Most tensors that a group takes and gives: devices bind so many to a kernel at least.
MOST_TENSORS = 8

_AT_PLACE: tuple[OperatorKind, ...] = ("elementwise", "broadcast")
_MAPS: tuple[OperatorKind, ...] = (*_AT_PLACE, "injective")
#: Maps that are left alone.
_ALONE = (*RESHAPES, "permute_dims")
#: A group is named after so many of its operators.
_NAMED = 4


@dataclass(frozen=True)
class FuseOperators:
    """Groups of operators as private functions with the attribute ``primitive``, called by ``FunctionCall``."""

    name: ClassVar[str] = "fuse_operators"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        groups: dict[str, AnyFunction] = {}
        functions: dict[str, AnyFunction] = {}
        taken = set(module.functions)
        for name, function in module.functions.items():
            functions[name] = function
            if isinstance(function, Function) and not is_primitive(function):
                functions[name] = _fused(function, groups, taken)
        return module.with_functions({**functions, **groups}) if groups else module


def _fused(function: Function, groups: dict[str, AnyFunction], taken: set[str]) -> Function:
    found = list(_Groups(function).found())
    calls: dict[GraphVar, GraphExpr] = {}
    inside: set[GraphVar] = set()
    for members in found:
        group, args = _outlined(members)
        name = free_name("fused_" + "_".join(_short(b) for b in members[:_NAMED]), taken)
        taken.add(name)
        groups[name] = group
        calls[members[-1].var] = FunctionCall(name, args)
        inside.update(b.var for b in members[:-1])
    if not found:
        return function
    kept = [
        replace(b, value=calls[b.var]) if b.var in calls else b
        for b in visit.bindings(function.body)
        if b.var not in inside
    ]
    return replace(function, body=visit.in_blocks(kept, function.body.result))


def _short(binding: Binding) -> str:
    assert isinstance(binding.value, OperatorCall)
    return binding.value.op.rpartition(".")[2]


def _outlined(members: list[Binding]) -> tuple[Function, tuple[GraphExpr, ...]]:
    """The operators as a function of its own variables and sizes, and what it is called with."""
    inside = {b.var for b in members}
    taken = tuple(dict.fromkeys(v for b in members for v in visit.uses(b) if v not in inside))
    mentioned = [size for part in (*(v.type for v in taken), *members) for size in visit.sizes(part)]
    sizes: dict[Var, Expr] = {size: Var(size.name, size.dtype) for size in mentioned}
    params = {var: GraphVar(var.name, replace_sizes(var.type, sizes)) for var in taken}
    body = visit.fresh(visit.in_blocks(members, members[-1].var), params, sizes)
    assert isinstance(body.result, GraphVar)
    origins = [b.value.origin for b in members if isinstance(b.value, OperatorCall) and b.value.origin]
    attrs: dict[str, AttrValue] = {"primitive": True, "origin": ", ".join(dict.fromkeys(origins))}
    return Function(tuple(params.values()), body, body.result.type, attrs, private=True), taken


class _Groups:
    """Which operators of a function go together."""

    def __init__(self, function: Function) -> None:
        self._bindings = {b.var: b for b in visit.bindings(function.body)}
        self._order = {var: n for n, var in enumerate(self._bindings)}
        self._users: dict[GraphVar, dict[GraphVar, None]] = {var: {} for var in self._bindings}
        for var, binding in self._bindings.items():
            for used in visit.uses(binding):
                if used in self._users:
                    self._users[used][var] = None
        self._results = set(visit.uses(function.body.result))
        self._grouped: set[GraphVar] = set()

    def found(self) -> Iterator[list[Binding]]:
        """The groups of two operators or more, in no particular order; the last of each is what leaves it."""
        rounds: tuple[tuple[OperatorKind, ...], ...] = (("contraction",), ("reduction", *_MAPS))
        for kinds in rounds:
            for var in self._bindings:
                if var not in self._grouped and self._kind(var) in kinds:
                    members = self._grown(var)
                    if len(members) > 1:
                        self._grouped.update(members)
                        yield [self._call(m) for m in members]

    def _grown(self, anchor: GraphVar) -> list[GraphVar]:
        """The group that begins with ``anchor``, in program order."""
        members = [anchor]
        while (more := self._next(members)) is not None and self._fits([*members, *more]):
            members.extend(more)
        return members

    def _next(self, members: list[GraphVar]) -> list[GraphVar] | None:
        """The operators up to the next one that alone uses what the group gives, or that all its users meet in."""
        end = members[-1]
        if end in self._results:
            return None
        found = set(self._users[end])
        while True:
            ordered = sorted(found, key=self._order.__getitem__)
            if not ordered or len(ordered) + len(members) > MOST_OPERATORS:
                return None
            if not all(self._joins(members, var, alone=len(ordered) == 1) for var in ordered):
                return None
            if any(var in self._results for var in ordered[:-1]):
                return None
            more = {user for var in ordered[:-1] for user in self._users[var]} - found
            if not more:
                return ordered
            found |= more

    def _joins(self, members: list[GraphVar], var: GraphVar, alone: bool) -> bool:
        """Whether an operator that follows may be in the group; ``alone``: it is the only one that follows."""
        kind = self._kind(var)
        if kind is None or var in self._grouped:
            return False
        if kind in _AT_PLACE and _same_shape(members[-1], var):
            return True
        only_maps = all(self._kind(m) in _MAPS for m in members)
        return alone and only_maps and kind in ("injective", "reduction")

    def _fits(self, members: list[GraphVar]) -> bool:
        """Whether a group takes not too many tensors, and its tensors tell all sizes that it has."""
        inside = set(members)
        taken = {v for m in members for v in visit.uses(self._bindings[m]) if v not in inside}
        told = {d for v in taken if isinstance(v.type, TensorType) for d in v.type.shape}
        parts = (*(v.type for v in taken), *(self._bindings[m] for m in members))
        untold = any(size not in told for part in parts for size in visit.sizes(part))
        return not untold and len(taken) + 1 <= MOST_TENSORS

    def _kind(self, var: GraphVar) -> OperatorKind | None:
        """Of the operator that makes ``var``; None where it cannot be in a group."""
        binding = self._bindings[var]
        if isinstance(binding, MatchCast) or not isinstance(binding.value, OperatorCall):
            return None
        if not isinstance(var.type, TensorType) or binding.value.op in _ALONE:
            return None
        if not all(is_immediate(c.data) for c in visit.constants(binding)):
            return None
        kind = operators.get(binding.value.op).kind
        return None if kind == "opaque" else kind

    def _call(self, var: GraphVar) -> Binding:
        binding = self._bindings[var]
        assert isinstance(binding, Binding)
        return binding


def _same_shape(a: GraphVar, b: GraphVar) -> bool:
    assert isinstance(a.type, TensorType)
    assert isinstance(b.type, TensorType)
    return dims.same_shape(a.type.shape, b.type.shape)
