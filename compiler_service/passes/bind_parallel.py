"""Parallel loops of a program that was written for threads of a CPU become threads of a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Binary, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import For, IfThenElse, Stmt
from crossfarm.ir.visitor import Mutator, substitute, walk

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class BindParallel:
    """The outermost ``T.parallel`` loop of a nest without thread bindings is bound to groups of ``threads`` threads.

    Loops that stay parallel after that run in order within their thread.
    """

    name: ClassVar[str] = "bind_parallel"
    threads: int = 64

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: self._bind(func))

    def _bind(self, func: PrimFunc) -> PrimFunc:
        body = _Binder(self.threads).mutate(func.body)
        return func if body is func.body else replace(func, body=body)


class _Binder(Mutator):
    def __init__(self, threads: int) -> None:
        self.threads = threads

    def mutate_For(self, node: For) -> Stmt:
        if node.kind == "thread_binding":
            return node
        if node.kind != "parallel":
            return self.mutate_children(node)
        if any(isinstance(n, For) and n.kind == "thread_binding" for n in walk(node.body)):
            return replace(node, kind="serial", body=self.mutate(node.body))
        return self._bound(node)

    def _bound(self, node: For) -> Stmt:
        """``min + group * threads + thread`` for the loop's variable, where that is not beyond its end."""
        dtype = node.var.dtype
        count = const_int(node.extent)
        threads = self.threads if count is None else max(1, min(self.threads, count))
        size = IntImm(threads, dtype)
        group, thread = Var(f"{node.var.name}_0", dtype), Var(f"{node.var.name}_1", dtype)
        at: Expr = Binary("add", Binary("mul", group, size), thread)
        inside = Binary("lt", at, node.extent)
        value = at if const_int(node.min) == 0 else Binary("add", node.min, at)
        body = substitute(node.body, {node.var: value})
        guarded = body if count is not None and count % threads == 0 else IfThenElse(inside, body)
        groups: Expr
        if count is not None:
            groups = IntImm(-(-count // threads), dtype)
        else:
            groups = Binary("floordiv", Binary("add", node.extent, IntImm(threads - 1, dtype)), size)
        inner = For(thread, IntImm(0, dtype), size, guarded, "thread_binding", "threadIdx.x")
        return For(group, IntImm(0, dtype), groups, inner, "thread_binding", "blockIdx.x")
