"""Graph functions that others call become part of their callers, and disappear where nobody else may call them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.graph.rewrite import is_primitive
from crossfarm.errors import BuildFailed
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.expr import ATOMS, Binding, Function, FunctionCall
from crossfarm.ir.graph.infer import type_of
from crossfarm.ir.graph.types import ShapeType, TensorType, TupleType, Type
from crossfarm.ir.graph.visit import AnyBinding
from crossfarm.ir.module import AnyFunction, IRModule

if TYPE_CHECKING:
    from crossfarm.target import Target

#: Of one function, after inlining: what calls another twice, which calls a third one twice, soon has no end.
MOST_BINDINGS = 1 << 17


@dataclass(frozen=True)
class InlineFunctions:
    """Every call of a graph function becomes that function's bindings; private ones are dropped. Groups of operators
    (``primitive``) stay."""

    name: ClassVar[str] = "inline_functions"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        """Raises BuildFailed where a function calls itself, by way of others or not, or becomes too long."""
        inlined = _Inlined(module)
        functions: dict[str, AnyFunction] = {}
        for name, function in module.functions.items():
            if not isinstance(function, Function) or is_primitive(function):
                functions[name] = function
            elif not function.private:
                functions[name] = inlined.function(name)
        if len(functions) == len(module.functions) and all(functions[n] is f for n, f in module.functions.items()):
            return module
        return module.with_functions(functions)


class _Inlined:
    """The module's functions without calls, each made when it is first needed."""

    def __init__(self, module: IRModule) -> None:
        self.module = module
        self._made: dict[str, Function] = {}
        self._open: list[str] = []

    def function(self, name: str) -> Function:
        if name in self._open:
            chain = " → ".join([*self._open[self._open.index(name) :], name])
            raise BuildFailed(f"graph functions call one another in a circle: {chain}", hint="write it as one function")
        if name not in self._made:
            found = self.module[name]
            assert isinstance(found, Function)
            self._open.append(name)
            self._made[name] = _Inliner(self).mutate_function(found)
            self._open.pop()
        return self._made[name]


class _Inliner(visit.GraphMutator):
    def __init__(self, inlined: _Inlined) -> None:
        super().__init__()
        self._inlined = inlined
        self._bindings = 0

    def mutate_binding(self, binding: AnyBinding) -> Sequence[AnyBinding]:
        call = self.mutate(binding.value)
        callee = self._inlined.module.functions.get(call.function) if isinstance(call, FunctionCall) else None
        if not isinstance(call, FunctionCall) or not isinstance(callee, Function) or is_primitive(callee):
            return super().mutate_binding(binding)
        callee = self._inlined.function(call.function)
        kinds = [type_of(a, self._inlined.module.functions) for a in call.args]
        sizes: dict[Var, Expr] = {}
        for param, kind in zip(callee.params, kinds):
            for size, value in dimensions(param.type, kind):
                sizes.setdefault(size, value)
        body = visit.fresh(callee.body, dict(zip(callee.params, call.args)), sizes)
        found = list(visit.bindings(body))
        self._bindings += len(found)
        if self._bindings > MOST_BINDINGS:
            raise BuildFailed(
                f"a graph function has more than {MOST_BINDINGS} bindings where those that it calls are written out; "
                f"the last is {call.function!r}",
                hint="call fewer functions, or build them one by one",
            )
        if isinstance(body.result, ATOMS) and isinstance(binding, Binding):
            self.variables[binding.var] = body.result
            return found
        return [*found, *super().mutate_binding(replace(binding, value=body.result))]


def dimensions(inner: Type, outer: Type) -> Iterator[tuple[Var, Expr]]:
    """What the sizes are that bare dimensions of ``inner``, a parameter's type, define, given a value of ``outer``."""
    match inner, outer:
        case TensorType(), TensorType():
            yield from ((a, b) for a, b in zip(inner.shape, outer.shape) if isinstance(a, Var))
        case ShapeType(), ShapeType():
            yield from ((a, b) for a, b in zip(inner.values, outer.values) if isinstance(a, Var))
        case TupleType(), TupleType():
            for a, b in zip(inner.fields, outer.fields):
                yield from dimensions(a, b)
