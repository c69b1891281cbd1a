"""A ``T.parallel`` loop whose iterations all write the same element runs as a serial one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from crossfarm.ir.expr import Expr, Let, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import Allocate, BufferStore, For, LetStmt, Stmt
from crossfarm.ir.visitor import Mutator, walk

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class SerializeRaces:
    """``for i in T.parallel(n): total[0] = total[0] + A[i]`` loses its ``parallel``: on threads it would be a race.

    Caught is a store to an element that does not depend on the loop's variable, in a buffer that outlives the
    iteration. Everything else that ``parallel`` promises is the program's word: where iterations exchange values
    through elements that do depend on it, only the program can know. Temporaries must have moved to their innermost
    loop before (``localize_buffers``).
    """

    name: ClassVar[str] = "serialize_races"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: _serialize(func))


def _serialize(func: PrimFunc) -> PrimFunc:
    body = _Serializer().mutate(func.body)
    return func if body is func.body else replace(func, body=body)


class _Serializer(Mutator):
    def mutate_For(self, node: For) -> Stmt:
        changed = self.mutate_children(node)
        return replace(changed, kind="serial") if node.kind == "parallel" and _races(node) else changed


def _races(loop: For) -> bool:
    varying: set[Expr] = {loop.var}
    own = {node.buffer for node in walk(loop.body) if isinstance(node, Allocate)}
    for node in walk(loop.body):  # pre-order: what is defined comes before its uses
        if isinstance(node, For | LetStmt | Let):
            source = (node.min, node.extent) if isinstance(node, For) else (node.value,)
            if _mentions(source, varying):
                varying.add(node.var)
        elif isinstance(node, BufferStore) and node.buffer not in own and not _mentions(node.indices, varying):
            return True
    return False


def _mentions(exprs: tuple[Expr, ...], variables: set[Expr]) -> bool:
    return any(isinstance(node, Var) and node in variables for expr in exprs for node in walk(expr))
