"""How passes go over graph functions: one binding after the other, each made anew or kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from crossfarm.ir.graph import visit
from crossfarm.ir.graph.expr import (
    ATOMS,
    Binding,
    CallTIR,
    Conditional,
    Function,
    GraphExpr,
    GraphVar,
    MatchCast,
    OperatorCall,
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.graph.infer import type_of
from crossfarm.ir.graph.visit import AnyBinding
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.naming import free_name

#: Operators that fail on integers where a divisor is zero.
DIVISIONS = ("divide", "floor_divide", "floor_mod", "trunc_mod")


def map_graph_functions(module: IRModule, transform: Callable[[str, Function], Function]) -> IRModule:
    """The module with ``transform(name, function)`` applied to each graph function that is no group of operators; the
    same module if none changed."""
    functions = {
        name: transform(name, f) if isinstance(f, Function) and not is_primitive(f) else f
        for name, f in module.functions.items()
    }
    if all(functions[name] is f for name, f in module.functions.items()):
        return module
    return module.with_functions(functions)


def is_primitive(function: AnyFunction | None) -> bool:
    """True for a group of operators that becomes one tensor program."""
    return isinstance(function, Function) and bool(function.attrs.get("primitive"))


def fixed_variables(bindings: Iterable[AnyBinding]) -> set[GraphVar]:
    """Those of the variables that depend on constants alone, and not on symbolic sizes."""
    fixed: set[GraphVar] = set()
    for binding in bindings:
        computes = isinstance(binding, Binding) and isinstance(
            binding.value, OperatorCall | CallTIR | TupleExpr | TupleItem
        )
        if computes and not visit.sizes(binding) and all(v in fixed for v in visit.uses(binding)):
            fixed.add(binding.var)
    return fixed


class Rewriter(visit.GraphMutator):
    """Makes a function's bindings anew, in order. Subclasses say in ``rewrite`` what becomes of each value.

    Attributes:
        functions: of the module.
        definitions: what each variable that was met so far is bound to, parameters left out.
    """

    def __init__(self, functions: Mapping[str, AnyFunction]) -> None:
        super().__init__()
        self.functions = functions
        self.definitions: dict[GraphVar, GraphExpr] = {}
        self._emitted: list[AnyBinding] = []
        self._names: set[str] = set()

    def rewrite(self, var: GraphVar, value: GraphExpr) -> GraphExpr:
        """What ``var`` is bound to instead of ``value``; an atom stands for it everywhere."""
        return value

    def mutate_function(self, function: Function) -> Function:
        self._names.update(v.name for v in visit.defined(function))
        return super().mutate_function(function)

    def mutate_binding(self, binding: AnyBinding) -> Sequence[AnyBinding]:
        value = self.mutate(binding.value)
        if isinstance(binding, MatchCast):
            return (binding if value is binding.value else replace(binding, value=value),)
        new = self.rewrite(binding.var, value)
        before, self._emitted = self._emitted, []
        if isinstance(new, ATOMS):
            self.variables[binding.var] = new
            return before
        self.definitions[binding.var] = new
        return (*before, binding if new is binding.value else Binding(binding.var, new))

    def mutate_Conditional(self, expr: Conditional) -> GraphExpr:
        """What is known of variables inside a branch is not known after it."""
        known, self.definitions = self.definitions, dict(self.definitions)
        result = self.mutate_children(expr)
        self.definitions = known
        return result

    def bind(self, value: GraphExpr, label: str) -> GraphExpr:
        """A new variable for ``value`` before the binding in hand, or ``value`` itself where it is an atom."""
        if isinstance(value, ATOMS):
            return value
        var = GraphVar(self._unique(label), type_of(value, self.functions))
        self._emitted.append(Binding(var, value))
        self.definitions[var] = value
        return var

    def _unique(self, label: str) -> str:
        name = free_name(label, self._names)
        self._names.add(name)
        return name

    def definition(self, expr: GraphExpr) -> GraphExpr:
        """What a variable is bound to; ``expr`` itself where it is none, or a parameter."""
        return self.definitions.get(expr, expr) if isinstance(expr, GraphVar) else expr
