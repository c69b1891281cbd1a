"""Accesses that are certainly out of bounds are errors at build time, with the place and the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compiler_service.symbols import dimension_symbols
from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Affine, Analyzer, Interval, affine, const_int, is_larger
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, Broadcast, BufferLoad, Call, Expr, IntImm, Let, Ramp, Select, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import BlockRealize, BufferStore, For, IfThenElse, LetStmt, While
from crossfarm.ir.visitor import Visitor, substitute, walk

if TYPE_CHECKING:
    from crossfarm.target import Target


_LARGEST_RESOLVED = 256


@dataclass(frozen=True)
class CheckRegions:
    """Raises InvalidModule for an access that is out of bounds whenever it runs, or in some iteration that surely runs.

    Guards count: what an ``if``, ``T.where``, ``if_then_else``, ``Select`` or ``and`` keeps in bounds is in bounds.
    What cannot be decided is allowed.
    """

    name: ClassVar[str] = "check_regions"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        for name, func in module.prim_funcs.items():
            _Checker(name, func).visit(func.body)
        return module


class _Checker(Visitor):
    def __init__(self, name: str, func: PrimFunc) -> None:
        self.name = name
        self.analyzer = Analyzer()
        for symbol in dimension_symbols(func):
            self.analyzer.bind(symbol, Interval(0, dt.int_range(symbol.dtype)[1]))
        self.fixed: set[Var] = {*dimension_symbols(func), *(p for p in func.params if isinstance(p, Var))}
        self.loops: dict[Var, For] = {}
        self.axes: dict[Var, Expr] = {}
        self.blocks: list[str] = []
        self.guards = 0

    # --- where we are

    def visit_For(self, node: For) -> None:
        self.visit(node.min)
        self.visit(node.extent)
        start, extent = self._resolve(node.min), self._resolve(node.extent)
        with self.analyzer.scope():
            self.analyzer.bind_loop(node.var, start, extent)
            if self.analyzer.is_contradictory():
                return
            self.loops[node.var] = For(node.var, start, extent, node.body)
            # of a loop whose range moves with another one, nobody says which values meet: as behind a guard
            irregular = const_int(start) is None or any(n not in self.fixed for n in walk(extent) if isinstance(n, Var))
            self.guards += irregular
            self.visit(node.body)
            self.guards -= irregular
            del self.loops[node.var]

    def visit_BlockRealize(self, node: BlockRealize) -> None:
        for value in node.iter_values:
            self.visit(value)
        block = node.block
        for axis, value in zip(block.iter_vars, node.iter_values):
            self._let(axis.var, value)
        self.blocks.append(block.name)
        if block.init is not None:
            self._guarded(node.predicate, True, block.init)
        self._guarded(node.predicate, True, block.body)
        self.blocks.pop()

    def visit_IfThenElse(self, node: IfThenElse) -> None:
        self.visit(node.condition)
        self._guarded(node.condition, True, node.then_body)
        if node.else_body is not None:
            self._guarded(node.condition, False, node.else_body)

    def visit_While(self, node: While) -> None:
        self.guards += 1
        self.visit_children(node)
        self.guards -= 1

    def visit_LetStmt(self, node: LetStmt) -> None:
        self.visit(node.value)
        self._let(node.var, node.value)
        self.visit(node.body)

    def visit_Let(self, node: Let) -> None:
        self.visit(node.value)
        self._let(node.var, node.value)
        self.visit(node.body)

    def visit_Select(self, node: Select) -> None:
        self._choice(node.condition, node.true_value, node.false_value)

    def visit_Call(self, node: Call) -> None:
        if node.op == "if_then_else":
            self._choice(*node.args)
        elif node.op == "address_of":  # may point one past the end
            return
        else:
            self.visit_children(node)

    def visit_Binary(self, node: Binary) -> None:
        self.visit(node.a)
        if node.op in ("and", "or"):
            self._guarded(node.a, node.op == "and", node.b)
        else:
            self.visit(node.b)

    def _choice(self, condition: Expr, if_true: Expr, if_false: Expr) -> None:
        self.visit(condition)
        self._guarded(condition, True, if_true)
        self._guarded(condition, False, if_false)

    def _guarded(self, condition: Expr, holds: bool, what: object) -> None:
        """Visits what runs only where ``condition`` is ``holds``."""
        resolved = self._resolve(condition)
        decided = self.analyzer.decide(resolved)
        if decided is not None:
            if decided == holds:
                self.visit(what)
            return
        with self.analyzer.scope():
            self.analyzer.assume(resolved, holds)
            if self.analyzer.is_contradictory():
                return
            self.guards += 1
            self.visit(what)
            self.guards -= 1

    def _let(self, var: Var, value: Expr) -> None:
        """A very large value is not looked into: nested lets would double it each time."""
        resolved = self._resolve(value)
        if dt.is_int(var.dtype) and dt.lanes_of(var.dtype) == 1 and not is_larger(resolved, _LARGEST_RESOLVED):
            self.axes[var] = resolved

    def _resolve(self, expr: Expr) -> Expr:
        """``expr`` in terms of loop variables."""
        return substitute(expr, self.axes)

    # --- what is accessed

    def visit_BufferLoad(self, node: BufferLoad) -> None:
        self.visit_children(node)
        self._check(node.buffer, node.indices, "reads")

    def visit_BufferStore(self, node: BufferStore) -> None:
        self.visit_children(node)
        self._check(node.buffer, node.indices, "writes")

    def _check(self, buffer: Buffer, indices: tuple[Expr, ...], verb: str) -> None:
        for dimension, (index, extent) in enumerate(zip(indices, buffer.shape)):
            extent = self._resolve(extent)
            for lane in _end_lanes(self._resolve(index)):
                if self._is_outside(lane, extent):
                    where = f"block {self.blocks[-1]!r} of " if self.blocks[1:] else ""
                    shape = ", ".join(_show(self._resolve(e)) for e in buffer.shape)
                    raise InvalidModule(
                        f"{where}function {self.name!r} {verb} {buffer.name!r} out of bounds: index {dimension} "
                        f"{self._describe(lane)}, but the shape is ({shape})",
                        hint="fix the index, or guard the access with T.if_then_else, an if, or T.where",
                    )

    def _is_outside(self, index: Expr, extent: Expr) -> bool:
        zero = IntImm(0, index.dtype)
        if index.dtype == extent.dtype and self.analyzer.prove(Binary("ge", index, extent)):
            return True
        if self.analyzer.prove(Binary("lt", index, zero)):
            return True
        if self.guards:
            return False
        lowest, highest = self._reached(index, lowest=True), self._reached(index, lowest=False)
        if lowest is not None and self.analyzer.affine_bounds(lowest).high < 0:
            return True
        if highest is None:
            return False
        highest.add(affine(extent), -1)
        return self.analyzer.affine_bounds(highest).low >= 0

    def _reached(self, index: Expr, lowest: bool) -> Affine | None:
        """The least or greatest value that an index takes in some iteration, in symbols; None if not known exactly."""
        result = affine(index)
        for var, loop in self.loops.items():
            coefficient = result.terms.get(var, 0)
            if coefficient:
                result.add(Affine(0, {var: 1}, {var: var}), -coefficient)
                result.add(affine(loop.min), coefficient)
                if (coefficient > 0) != lowest:
                    result.add(affine(loop.extent), coefficient)
                    result.constant -= coefficient
        return result if all(atom in self.fixed for atom in result.terms) else None

    def _describe(self, index: Expr) -> str:
        values = self.analyzer.bounds(index)
        if values.low == values.high:
            return f"is {values.low}"
        whole = Interval.of(index.dtype)
        if values.low <= whole.low or values.high >= whole.high:
            return f"is {_show(index)}"
        return f"runs from {values.low} to {values.high}"


def _end_lanes(index: Expr) -> tuple[Expr, ...]:
    """The index, or of a vector its first and last lane."""
    if isinstance(index, Broadcast):
        return _end_lanes(index.value)
    if isinstance(index, Ramp):
        steps = Binary("mul", index.stride, IntImm(index.lanes - 1, index.stride.dtype))
        return index.base, Binary("add", index.base, steps)
    return (index,) if dt.lanes_of(index.dtype) == 1 else ()


def _show(expr: Expr) -> str:
    if isinstance(expr, IntImm):
        return str(expr.value)
    from crossfarm.ir.printer import print_node

    return print_node(expr)
