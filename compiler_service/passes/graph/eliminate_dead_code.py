"""What nobody uses is not computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.graph.rewrite import is_primitive, map_graph_functions
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.expr import Binding, CallPacked, Conditional, Function, FunctionCall, GraphExpr
from crossfarm.ir.module import AnyFunction, IRModule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crossfarm.target import Target


@dataclass(frozen=True)
class EliminateDeadCode:
    """Drops bindings whose variables are not used, and groups of operators that are not called. Casts that are checked
    when the program runs stay, and calls that may have an effect."""

    name: ClassVar[str] = "eliminate_dead_code"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        after = map_graph_functions(module, lambda _, function: _alive(function, module.functions))
        called = {
            e.function
            for function in after.graph_functions.values()
            for e in visit.expressions(function)
            if isinstance(e, FunctionCall)
        }
        kept = {name: f for name, f in after.functions.items() if not is_primitive(f) or name in called}
        return after if len(kept) == len(after.functions) else after.with_functions(kept)


def _alive(function: Function, functions: Mapping[str, AnyFunction]) -> Function:
    used = set(visit.uses(function.body.result))
    for binding in reversed(list(visit.bindings(function.body))):
        if binding.var in used or not isinstance(binding, Binding) or _may_have_effects(binding.value, functions):
            used.add(binding.var)
            used.update(visit.uses(binding))
    blocks = [
        block
        if all(b.var in used for b in block.bindings)
        else replace(block, bindings=tuple(b for b in block.bindings if b.var in used))
        for block in function.body.blocks
    ]
    kept = tuple(block for block in blocks if block.bindings)
    if len(kept) == len(function.body.blocks) and all(a is b for a, b in zip(kept, function.body.blocks)):
        return function
    return replace(function, body=replace(function.body, blocks=kept))


def _may_have_effects(value: GraphExpr, functions: Mapping[str, AnyFunction]) -> bool:
    match value:
        case CallPacked():
            return True
        case FunctionCall(function=name):
            callee = functions.get(name)
            return not isinstance(callee, Function) or not callee.pure
        case Conditional():
            branches = [b for seq in (value.then, value.other) for b in visit.bindings(seq)]
            return any(not isinstance(b, Binding) or _may_have_effects(b.value, functions) for b in branches)
        case _:
            return False
