"""Loops that the program asks to unroll."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from compiler_service.passes.copies import fresh_copy
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Binary, IntImm
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import For, Stmt
from crossfarm.ir.visitor import Mutator, seq, walk

if TYPE_CHECKING:
    from crossfarm.target import Target


#: Nodes of all copies of a loop's body together.
_MOST_NODES = 2048


def written_out(body: Stmt, max_nodes: int = _MOST_NODES) -> Stmt:
    """``body`` with its ``T.unroll`` loops written out that have no more than ``max_nodes`` then."""
    return _Unroller(max_nodes).mutate(body)


@dataclass(frozen=True)
class UnrollLoops:
    """Writes ``T.unroll`` loops out; a larger one stays a loop, with a request that LLVM decides on.

    Args:
        max_nodes: how many nodes all copies of a loop's body may have together.
    """

    name: ClassVar[str] = "unroll_loops"
    max_nodes: int = _MOST_NODES

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: self._unroll(func))

    def _unroll(self, func: PrimFunc) -> PrimFunc:
        body = written_out(func.body, self.max_nodes)
        return func if body is func.body else replace(func, body=body)


class _Unroller(Mutator):
    def __init__(self, max_nodes: int) -> None:
        self.max_nodes = max_nodes

    def mutate_For(self, node: For) -> Stmt:
        body = self.mutate(node.body)
        node = node if body is node.body else replace(node, body=body)
        count = const_int(node.extent)
        if node.kind != "unrolled" or count is None:
            return node
        if count * sum(1 for _ in walk(node.body)) > self.max_nodes:
            return node
        copies = []
        for i in range(count):
            step = IntImm(i, node.var.dtype)
            value = step if const_int(node.min) == 0 else Binary("add", node.min, step)
            copies.append(fresh_copy(node.body, {node.var: value}))
        return seq(*copies)
