"""Where each temporary lives: on the stack, or in the workspace that the caller lends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from compiler_service.passes.split_kernels import KERNEL_OF
from compiler_service.symbols import dimension_symbols, function_symbols
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Analyzer, Interval, affine, const_int, structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, Cast, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import Allocate, AttrValue, For, SeqStmt, Stmt
from crossfarm.ir.visitor import Mutator, Node, children, walk

if TYPE_CHECKING:
    from crossfarm.target import Target

#: Value of ``Allocate.annotations["place"]`` for the stack; a number is a region of the workspace.
STACK = "stack"
_ALIGN = 64


@dataclass(frozen=True)
class Plan:
    """A piece of memory for temporaries: byte offsets of its regions, and its size in bytes, in the symbols; int64."""

    offsets: tuple[Expr, ...]
    size: Expr


@dataclass(frozen=True)
class PlanWorkspace:
    """Annotates every Allocate with its ``place``, and in the workspace also with its size in ``bytes``.

    Small temporaries of constant size go on the stack, where LLVM turns them into registers if it can. The others get
    regions of the workspace, one after the other, 64-byte aligned; two whose uses do not overlap in time share one. A
    temporary whose size depends on a loop variable gets what the largest needs. Temporaries inside a parallel loop are
    planned apart, on the stack and in the scratch memory of each thread.

    Args:
        stack_bytes: the largest temporary that goes on the stack.
        stack_total: what a function's temporaries may take of the stack together.
        align: sizes of regions are multiples of it, in bytes; at least 64.
    """

    name: ClassVar[str] = "plan_workspace"
    stack_bytes: int = 4096
    stack_total: int = 32768
    align: int = _ALIGN

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, self._plan)

    def _plan(self, name: str, func: PrimFunc) -> PrimFunc:
        if KERNEL_OF in func.attrs:
            return func  # temporaries of a kernel are its threads' own
        body = _Placer(self, name, func).mutate(func.body)
        return func if body is func.body else replace(func, body=body)


def workspace_plan(func: PrimFunc) -> Plan:
    """The plan that PlanWorkspace's annotations make of a function; an empty one where there are no temporaries."""
    return _plan_of(_outside_parallel(func.body))


def scratch_plan(loop: For) -> Plan:
    """The plan of a parallel loop that is not inside another one: of the memory that each of its threads needs."""
    return _plan_of(walk(loop.body))


def stored_shape(buffer: Buffer) -> tuple[Expr, ...]:
    """Extents whose product is how many elements a temporary takes in memory: its shape where it is compact."""
    if not buffer.strides:
        return buffer.shape
    last: Expr = IntImm(1, buffer.strides[0].dtype)
    for extent, stride in zip(buffer.shape, buffer.strides):
        before = Binary("sub", extent, IntImm(1, extent.dtype))
        last = Binary("add", last, Binary("mul", before, stride))
    return (affine(last).to_expr(last.dtype),)


def _plan_of(nodes: Iterator[Node | Buffer]) -> Plan:
    sizes: dict[int, Expr] = {}
    for node in nodes:
        if isinstance(node, Allocate) and isinstance(place := node.annotations.get("place"), int):
            size = node.annotations["bytes"]
            new = size if isinstance(size, Expr) else IntImm(int(str(size)), "int64")
            old = const_int(sizes.get(place, new))
            sizes[place] = new if old is None or old <= (const_int(new) or 0) else sizes[place]
    offsets: list[Expr] = []
    end: Expr = IntImm(0, "int64")
    for place in sorted(sizes):
        offsets.append(end)
        end = _add(end, _round_up(sizes[place]))
    return Plan(tuple(offsets), end)


@dataclass
class _Region:
    """Part of the workspace: its size, and the last top-level statement that uses it (None: never free again)."""

    size: Expr
    busy_until: int | None


class _Memory:
    """What has been given of a function's or a thread's memory."""

    def __init__(self, body: Stmt, stack: int) -> None:
        self.stack_left = stack
        self.regions: list[_Region] = []
        self.uses = _uses(body)


class _Placer(Mutator):
    def __init__(self, options: PlanWorkspace, name: str, func: PrimFunc) -> None:
        self.options = options
        self.name = name
        self.memory = _Memory(func.body, options.stack_total)
        self.in_parallel = False
        self.analyzer = Analyzer()
        self.symbols = set(function_symbols(func))
        self.dimensions = set(dimension_symbols(func))
        for symbol in self.dimensions:
            self.analyzer.bind(symbol, Interval(0, dt.int_range(symbol.dtype)[1]))

    def mutate_For(self, node: For) -> Stmt:
        with self.analyzer.scope():
            self.analyzer.bind_loop(node.var, node.min, node.extent)
            if node.kind == "parallel" and not self.in_parallel:
                around, self.memory = self.memory, _Memory(node.body, self.options.stack_total)
                self.in_parallel = True
                body = self.mutate(node.body)
                self.memory, self.in_parallel = around, False
            else:
                body = self.mutate(node.body)
        return node if body is node.body else replace(node, body=body)

    def mutate_Allocate(self, node: Allocate) -> Stmt:
        size = (
            _round_up(self._bytes(node.buffer), self.options.align)
            if self.options.align > _ALIGN
            else self._bytes(node.buffer)
        )
        constant = const_int(size)
        fixed_shape = all(isinstance(extent, IntImm) for extent in stored_shape(node.buffer))
        if constant is not None and fixed_shape and constant <= min(self.options.stack_bytes, self.memory.stack_left):
            self.memory.stack_left -= constant
            where: dict[str, AttrValue] = {"place": STACK}
        else:
            number = self._region(size, self.memory.uses.get(node.buffer))
            where = {"place": number, "bytes": size if constant is None else constant}
        return replace(node, body=self.mutate(node.body), annotations={**node.annotations, **where})

    def _region(self, size: Expr, used: tuple[int, int] | None) -> int:
        """Number of a region of that size: one that is free by then, else a new one."""
        for number, region in enumerate(self.memory.regions):
            if used is None or region.busy_until is None or region.busy_until >= used[0]:
                continue
            old, new = const_int(region.size), const_int(size)
            if (old is None or new is None) and structural_key(region.size) != structural_key(size):
                continue
            if old is not None and new is not None and new > old:
                region.size = size
            region.busy_until = used[1]
            return number
        self.memory.regions.append(_Region(size, None if used is None else used[1]))
        return len(self.memory.regions) - 1

    def _bytes(self, buffer: Buffer) -> Expr:
        size: Expr = IntImm(dt.itemsize(buffer.dtype), "int64")
        for extent in stored_shape(buffer):
            if any(isinstance(n, Var) and n not in self.symbols for n in walk(extent)):
                extent = self._largest(buffer, extent)
            if isinstance(size, IntImm) and isinstance(extent, IntImm):
                size = IntImm(size.value * max(extent.value, 0), "int64")
            else:
                size = Binary("mul", size, extent if extent.dtype == "int64" else Cast(extent, "int64"))
        if any(isinstance(n, Var) and n not in self.dimensions for n in walk(size)):
            size = Binary("max", size, IntImm(0, "int64"))  # a scalar argument may be negative
        return size

    def _largest(self, buffer: Buffer, extent: Expr) -> Expr:
        bounds = self.analyzer.bounds(extent)
        if bounds.high >= dt.int_range(extent.dtype)[1]:
            raise BuildFailed(
                f"function {self.name!r} allocates {buffer.name!r}, whose size depends on a variable without a known "
                "largest value",
                hint="give it a size of constants, dimensions of parameters and scalar parameters",
            )
        return IntImm(bounds.high, extent.dtype)


def _outside_parallel(body: Stmt) -> Iterator[Node | Buffer]:
    """The nodes of ``body`` but for those inside parallel loops."""
    stack: list[Node | Buffer] = [body]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, Buffer) and not (isinstance(node, For) and node.kind == "parallel"):
            stack.extend(reversed(list(children(node))))


def _uses(body: Stmt) -> dict[Buffer, tuple[int, int]]:
    """First and last top-level statement that touches each buffer allocated around all of them."""
    allocated: set[Buffer] = set()
    while isinstance(body, Allocate):
        allocated.add(body.buffer)
        body = body.body
    found: dict[Buffer, tuple[int, int]] = {}
    for position, stmt in enumerate(body.stmts if isinstance(body, SeqStmt) else (body,)):
        for node in walk(stmt):
            if isinstance(node, Buffer) and node in allocated:
                found[node] = (found.get(node, (position, 0))[0], position)
    return found


def _round_up(size: Expr, align: int = _ALIGN) -> Expr:
    if isinstance(size, IntImm):
        return IntImm(-(-size.value // align) * align, "int64")
    unit = IntImm(align, "int64")
    blocks = Binary("floordiv", Binary("add", size, IntImm(align - 1, "int64")), unit)
    return Binary("mul", blocks, unit)


def _add(a: Expr, b: Expr) -> Expr:
    if isinstance(a, IntImm) and isinstance(b, IntImm):
        return IntImm(a.value + b.value, "int64")
    return b if isinstance(a, IntImm) and a.value == 0 else Binary("add", a, b)
