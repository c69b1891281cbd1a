"""Constants become parameters, and what depends on them alone a function that runs once.

``main_prepare`` computes from constants what ``main`` needs of them: folded weights, other layouts, whatever operators
there are on constants alone. It runs on the device when the artifact is loaded. Both take the constants that they read
as trailing parameters; the attribute ``constants`` says where the content of each comes from: ``sha256:`` and the
digest of its bytes, or ``main_prepare:N`` for the N-th result of that function. A compiler that never sees a weight
builds the same code for every set of weights.

Numbers, which are constants of one element whose value is here, stay: programs have them written into them. Where one
is a result, it is made by ``full``: it may come from folding, and then nobody else has its content.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import is_
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.graph.immediate import identifier, is_immediate
from compiler_service.passes.graph.rewrite import fixed_variables
from crossfarm.errors import InvalidModule
from crossfarm.ir.graph import dims, operators, visit
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import (
    Binding,
    Constant,
    Function,
    GraphExpr,
    GraphVar,
    OperatorCall,
    TupleExpr,
)
from crossfarm.ir.graph.infer import type_of
from crossfarm.ir.graph.types import TensorType, Type
from crossfarm.ir.graph.visit import AnyBinding
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.naming import free_name

if TYPE_CHECKING:
    from crossfarm.target import Target

#: Attribute of a function: where the content of each of its trailing parameters comes from.
CONSTANTS = "constants"
#: What the function is called that prepares the constants of another.
PREPARE = "{}_prepare"
#: Operators of these kinds are cheap where they write more than they read: they are left where they are used, for
#: others of these kinds to compute on the way.
_MAPS = ("elementwise", "broadcast", "injective")
#: Elements that are written at each call for an operator that needs them in memory, rather than prepared, at most.
_MOST_MADE = 64


@dataclass(frozen=True)
class LiftConstants:
    """For every public graph function: constants as trailing parameters, and a function that prepares them."""

    name: ClassVar[str] = "lift_constants"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        """Raises InvalidModule where a name that a function to prepare constants needs is taken."""
        functions: dict[str, AnyFunction] = {}
        for name, function in module.functions.items():
            if not isinstance(function, Function) or function.private:
                functions[name] = function
                continue
            prepare = PREPARE.format(name)
            main, prepared = _lifted(function, prepare)
            functions[name] = main
            if prepared is not None:
                if prepare in module.functions:
                    raise InvalidModule(
                        f"module {module.name!r} has a function {prepare!r}, which is what prepares the constants of "
                        f"{name!r} once they are lifted",
                        hint="rename yours",
                    )
                functions[prepare] = prepared
        if len(functions) == len(module.functions) and all(functions[n] is f for n, f in module.functions.items()):
            return module
        return module.with_functions(functions)


def texts_of(function: Function) -> tuple[str, ...]:
    """Where the content of each trailing parameter comes from."""
    texts = function.attrs.get(CONSTANTS, ())
    assert isinstance(texts, tuple)
    return tuple(str(text) for text in texts)


def _lifted(function: Function, prepare: str) -> tuple[Function, Function | None]:
    """The function without constants, and the one that prepares what it needs of them, if anything."""
    bindings = list(visit.bindings(function.body))
    texts = texts_of(function)
    # what takes nothing but constants is such a function itself
    fixed = fixed_variables(bindings) if len(function.params) > len(texts) else set()
    plan = _Plan(bindings, function.body.result, fixed)
    main = _Constants(texts, [v.name for v in visit.defined(function)])
    for number, var in enumerate(plan.needed):
        main.prepared[var] = (plan.label(var), f"{prepare}:{number}")
    kept = [new for b in plan.kept for new in main.mutate_binding(b)]
    result = main.mutate(function.body.result)
    kept.extend(main.emitted())
    if not main.params and len(kept) == len(bindings):
        return function, None
    lifted = replace(
        function,
        body=visit.in_blocks(kept, result),
        params=(*function.params, *main.params),
        attrs={**function.attrs, CONSTANTS: tuple(main.texts)} if main.texts else function.attrs,
    )
    return lifted, _preparing(plan) if plan.needed else None


def _preparing(plan: _Plan) -> Function:
    """The function that computes what is needed, with variables of its own."""
    bindings = [b for b in plan.bindings if b.var in plan.inside]
    own = _Constants((), [b.var.name for b in bindings])
    body = visit.fresh(visit.in_blocks(bindings, TupleExpr(tuple(plan.needed))))
    made = [new for b in visit.bindings(body) for new in own.mutate_binding(b)]
    assert isinstance(body.result, TupleExpr)
    result = body.result.fields[0] if len(body.result.fields) == 1 else body.result
    whole = Function(tuple(own.params), visit.in_blocks(made, result), type_of(result, {}))
    return replace(whole, attrs={CONSTANTS: tuple(own.texts)} if own.texts else {})


class _Plan:
    """What of a function is computed where.

    Attributes:
        needed: variables that depend on constants alone, and that what is left of the function takes.
        inside: what has to be computed for them.
        kept: the bindings that are left.
    """

    def __init__(self, bindings: list[AnyBinding], result: GraphExpr, fixed: set[GraphVar]) -> None:
        """``fixed``: the variables that depend on constants alone."""
        self.bindings = bindings
        self._values = {b.var: b.value for b in bindings}
        self._fixed = fixed
        #: what is taken by those that do not compute their operands on the way, as sums of products
        self._in_memory = {
            v for b in bindings if b.var not in fixed and not _is_map(b.value) for v in visit.uses(b.value)
        }
        own: set[GraphVar] = set()
        while True:
            self.needed = self._frontier(own, result)
            cheap = {v for v in self.needed if not self._pays(v)}
            if not cheap:
                break
            own |= cheap
        self.inside = self._below(self.needed)
        self.kept = [b for b in bindings if b.var not in self._fixed or b.var in own]

    def label(self, var: GraphVar) -> str:
        """A name for what is prepared, after the first constant in it that has one."""
        below = self._below([var])
        found = (c.note for b in self.bindings if b.var in below for c in visit.constants(b) if c.note)
        return next((f"{note}_prepared" for note in found), var.name)

    def _frontier(self, own: set[GraphVar], result: GraphExpr) -> list[GraphVar]:
        """What is fixed and not ``own``, and taken by what the function computes itself, in order of its making."""
        taken = set(visit.uses(result))
        for binding in self.bindings:
            if binding.var not in self._fixed or binding.var in own:
                taken.update(visit.uses(binding))
        return [b.var for b in self.bindings if b.var in self._fixed and b.var not in own and b.var in taken]

    def _pays(self, var: GraphVar) -> bool:
        """False for what is written in more elements than it is computed from: it is made where it is used, unless
        that would be in memory, and again at each call."""
        value = self._values[var]
        if not isinstance(var.type, TensorType):
            return False
        if not isinstance(value, OperatorCall) or not _is_map(value):
            return True
        count = _elements(var.type)
        read = sum(_elements(type_of(a, {})) for a in set(value.args))
        return count <= read or (var in self._in_memory and count > _MOST_MADE)

    def _below(self, roots: Iterable[GraphVar]) -> set[GraphVar]:
        """The variables and all that they are computed from."""
        found: set[GraphVar] = set()
        stack = list(roots)
        while stack:
            var = stack.pop()
            if var not in found and var in self._values:
                found.add(var)
                stack.extend(visit.uses(self._values[var]))
        return found


class _Constants(visit.GraphMutator):
    """The constants that a function takes, as parameters in order of their use; each content once.

    Attributes:
        params: the new parameters.
        texts: where the content of each comes from, after those that the function had before.
        prepared: by variable, name and text of the parameter that it becomes where it is used.
    """

    def __init__(self, texts: Iterable[str], names: Iterable[str]) -> None:
        super().__init__()
        self.params: list[GraphVar] = []
        self.texts = list(texts)
        self.prepared: dict[GraphVar, tuple[str, str]] = {}
        self._names = set(names)
        self._contents: dict[ConstantData, GraphVar] = {}
        self._emitted: list[AnyBinding] = []

    def emitted(self) -> list[AnyBinding]:
        """The bindings that have to be there before what was mutated last."""
        found, self._emitted = self._emitted, []
        return found

    def mutate_binding(self, binding: AnyBinding) -> Sequence[AnyBinding]:
        made = super().mutate_binding(binding)
        return [*self.emitted(), *made]

    def mutate_OperatorCall(self, call: OperatorCall) -> GraphExpr:
        """An operator's numbers stay constants."""
        args = tuple(a if isinstance(a, Constant) and is_immediate(a.data) else self.mutate(a) for a in call.args)
        return call if all(map(is_, args, call.args)) else replace(call, args=args)

    def mutate_Constant(self, constant: Constant) -> GraphExpr:
        data = constant.data
        if data in self._contents:
            return self._contents[data]
        kind = type_of(constant, {})
        if is_immediate(data):
            value = data.array.reshape(-1)[0].item()
            self._contents[data] = number = GraphVar(self._unique(constant.note or "number"), kind)
            attrs = {"shape": data.shape, "value": value, "dtype": data.dtype}
            self._emitted.append(Binding(number, OperatorCall("full", (), attrs)))
        else:
            self._contents[data] = self._add(constant.note or "constant", kind, f"sha256:{data.digest}")
        return self._contents[data]

    def mutate_GraphVar(self, var: GraphVar) -> GraphExpr:
        if var not in self.variables and var in self.prepared:
            label, text = self.prepared[var]
            self.variables[var] = self._add(label, var.type, text)
        return self.variables.get(var, var)

    def _add(self, label: str, kind: Type, text: str) -> GraphVar:
        param = GraphVar(self._unique(label), kind)
        self.params.append(param)
        self.texts.append(text)
        return param

    def _unique(self, label: str) -> str:
        name = free_name(identifier(label), self._names)
        self._names.add(name)
        return name


def _is_map(value: GraphExpr) -> bool:
    return isinstance(value, OperatorCall) and operators.get(value.op).kind in _MAPS


def _elements(kind: Type) -> int:
    """How many a tensor of constant shape has."""
    assert isinstance(kind, TensorType)
    shape = dims.constants(kind.shape)
    assert shape is not None
    return math.prod(shape)
