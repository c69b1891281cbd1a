"""``match_cast`` that says nothing new: the sizes that it names get the values that they are known to have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.graph.inline_functions import dimensions
from compiler_service.passes.graph.rewrite import map_graph_functions
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.graph import dims, visit
from crossfarm.ir.graph.expr import ATOMS, Function, MatchCast
from crossfarm.ir.graph.infer import same_type, type_of
from crossfarm.ir.graph.visit import AnyBinding
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.visitor import substitute

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crossfarm.target import Target


@dataclass(frozen=True)
class ResolveCasts:
    """A cast to a type that the value provably has is the value. One that must be checked when the program runs
    stays, with those of its sizes replaced that are known."""

    name: ClassVar[str] = "resolve_casts"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_graph_functions(module, lambda _, f: _Casts(module.functions, f).mutate_function(f))


class _Casts(visit.GraphMutator):
    def __init__(self, functions: Mapping[str, AnyFunction], function: Function) -> None:
        super().__init__()
        self._functions = functions
        self._known = {size for p in function.params for size in visit.sizes(p.type)}
        self._sizes: dict[Var, Expr] = {}

    def mutate_binding(self, binding: AnyBinding) -> Sequence[AnyBinding]:
        if not isinstance(binding, MatchCast):
            return super().mutate_binding(binding)
        value = self.mutate(binding.value)
        kind = type_of(value, self._functions)
        for size, known in dimensions(binding.type, kind):
            if size not in self._known and size not in self._sizes:
                self._sizes[size] = known
        if same_type(self.mutate_type(binding.type), kind) and isinstance(value, ATOMS):
            self.variables[binding.var] = value
            return ()
        return super().mutate_binding(binding)

    def mutate_dim(self, value: Expr) -> Expr:
        return self.mutate_scalar(value)

    def mutate_scalar(self, value: Expr) -> Expr:
        new = substitute(value, self._sizes) if self._sizes else value
        return dims.dim(new) if new is not value and new.dtype == "int64" else new
