"""Index arithmetic in 32 bits where it fits: devices with thread groups emulate 64-bit integers, division above all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from compiler_service.passes.split_kernels import KERNEL_OF
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Analyzer, Interval
from crossfarm.ir.expr import COMPARISONS, Binary, BufferLoad, Cast, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import BufferStore, For, Stmt
from crossfarm.ir.visitor import Mutator

if TYPE_CHECKING:
    from crossfarm.target import Target

_OPERATORS = ("add", "sub", "mul", "div", "mod", "floordiv", "floormod", "min", "max")
_NARROW = Interval(*dt.int_range("int32"))


@dataclass(frozen=True)
class NarrowIndices:
    """In kernels, loops of int64 whose values fit into int32 get such a variable, and what is computed of them follows.

    An expression is narrowed where it and everything it is made of provably fits; what stays is widened where it is
    used. Values do not change.
    """

    name: ClassVar[str] = "narrow_indices"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: _narrow(func) if KERNEL_OF in func.attrs else func)


def _narrow(func: PrimFunc) -> PrimFunc:
    body = _Narrower().mutate(func.body)
    return func if body is func.body else replace(func, body=body)


class _Narrower(Mutator):
    """Looks at expressions as they were, whose ranges the analyzer knows, and writes the narrow ones.

    Attributes:
        short: the new variable of each loop that has one.
    """

    def __init__(self) -> None:
        self.analyzer = Analyzer()
        self.short: dict[Var, Var] = {}

    def mutate_For(self, node: For) -> Stmt:
        short = self._short(node.min), self._short(node.extent)
        start, extent = self.mutate(node.min), self.mutate(node.extent)
        with self.analyzer.scope():
            self.analyzer.bind_loop(node.var, node.min, node.extent)
            stop = Binary("add", node.min, node.extent)
            first, count = short
            if node.var.dtype == "int64" and first is not None and count is not None and self._fits(stop):
                self.short[node.var] = var = Var(node.var.name, "int32")
                return replace(node, var=var, min=first, extent=count, body=self.mutate(node.body))
            body = self.mutate(node.body)
        same = body is node.body and start is node.min and extent is node.extent
        return node if same else replace(node, min=start, extent=extent, body=body)

    def mutate_BufferStore(self, node: BufferStore) -> Stmt:
        value, indices = self.mutate(node.value), tuple(self._index(i) for i in node.indices)
        same = value is node.value and all(a is b for a, b in zip(indices, node.indices))
        return node if same else replace(node, value=value, indices=indices)

    def mutate_BufferLoad(self, node: BufferLoad) -> Expr:
        indices = tuple(self._index(i) for i in node.indices)
        return node if all(a is b for a, b in zip(indices, node.indices)) else replace(node, indices=indices)

    def mutate_Var(self, node: Var) -> Expr:
        return Cast(self.short[node], node.dtype) if node in self.short else node

    def mutate_Binary(self, node: Binary) -> Expr:
        if node.op in COMPARISONS and node.a.dtype == "int64":
            a, b = self._short(node.a), self._short(node.b)
            if a is not None and b is not None:
                return Binary(node.op, a, b)
        short = self._short(node) if node.dtype == "int64" else None
        if short is not None:
            return Cast(short, "int64")
        result: Expr = self.mutate_children(node)
        return result

    def _index(self, node: Expr) -> Expr:
        """An index, which may have any integer dtype."""
        short = self._short(node) if node.dtype == "int64" else None
        if short is not None:
            return short
        result: Expr = self.mutate(node)
        return result

    def _short(self, node: Expr) -> Expr | None:
        """``node``, an int64, as an int32; None where it may not fit, or where nothing is gained."""
        match node:
            case IntImm():
                return IntImm(node.value, "int32") if node.value in _NARROW else None
            case Var():
                return self.short.get(node)
            case Cast() if node.value.dtype == "int32":
                value: Expr = self.mutate(node.value)
                return value
            case Binary() if node.op in _OPERATORS and self._fits(node):
                a, b = self._short(node.a), self._short(node.b)
                return None if a is None or b is None else Binary(node.op, a, b)
        return None

    def _fits(self, node: Expr) -> bool:
        return _NARROW.covers(self.analyzer.bounds(node))
