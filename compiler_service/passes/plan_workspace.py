"""Where each temporary lives: on the stack, or in the workspace that the caller lends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from compiler_service.passes.plan_calls import plan_calls
from compiler_service.passes.split_kernels import KERNEL_OF
from compiler_service.passes.workspace import ALIGN, STACK, may_be_negative, round_up, stored_shape
from compiler_service.symbols import dimension_symbols, function_symbols
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Analyzer, Interval, const_int, structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import is_caller
from crossfarm.ir.expr import Binary, Cast, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import Allocate, AttrValue, For, SeqStmt, Stmt
from crossfarm.ir.visitor import Mutator, walk

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class PlanWorkspace:
    """Annotates every Allocate with its ``place``, and in the workspace also with its size in ``bytes``.

    Small temporaries of constant size go on the stack, where LLVM turns them into registers if it can. The others get
    regions of the workspace, one after the other, 64-byte aligned; two whose uses do not overlap in time share one. A
    temporary whose size depends on a loop variable gets what the largest needs. Temporaries inside a parallel loop are
    planned apart, on the stack and in the scratch memory of each thread.

    A function that calls others lends each call the memory that the callee's temporaries take, for as long as the call
    lasts; ``plan_calls`` places that among the values between the calls.

    Args:
        stack_bytes: the largest temporary that goes on the stack.
        stack_total: what a function's temporaries may take of the stack together.
        align: sizes of regions are multiples of it, in bytes; at least 64.
    """

    name: ClassVar[str] = "plan_workspace"
    stack_bytes: int = 4096
    stack_total: int = 32768
    align: int = ALIGN

    def apply(self, module: IRModule, target: Target) -> IRModule:
        planned = map_functions(module, self._plan)
        callees = planned.prim_funcs
        callers = {name: plan_calls(func, callees, self.align) for name, func in callees.items() if is_caller(func)}
        return planned.with_functions({**planned.functions, **callers}) if callers else planned

    def _plan(self, name: str, func: PrimFunc) -> PrimFunc:
        if KERNEL_OF in func.attrs:
            return func  # temporaries of a kernel are its threads' own
        body = _Placer(self, name, func).mutate(func.body)
        return func if body is func.body else replace(func, body=body)


@dataclass(eq=False)
class _Region:
    """Part of the workspace: its size, and the last top-level statement that uses it (None: never free again)."""

    size: Expr
    busy_until: int | None

    @property
    def constant(self) -> int:
        """The size where it is a constant; 0 where not: such regions are compared with equal ones alone."""
        return const_int(self.size) or 0

    def is_free(self, when: int) -> bool:
        """True where the statement ``when`` may begin to use it."""
        return self.busy_until is not None and self.busy_until < when

    def compares(self, size: Expr) -> bool:
        """True where it is known which of the two sizes is larger."""
        both_constant = const_int(self.size) is not None and const_int(size) is not None
        return both_constant or structural_key(self.size) == structural_key(size)


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
            round_up(self._bytes(node.buffer), self.options.align)
            if self.options.align > ALIGN
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
        """Number of a region of that size: of those that are free by then the smallest that is large enough, else the
        largest, which grows; a new one where none is free."""
        free = [] if used is None else [r for r in self.memory.regions if r.is_free(used[0]) and r.compares(size)]
        if used is None or not free:
            self.memory.regions.append(_Region(size, None if used is None else used[1]))
            return len(self.memory.regions) - 1
        new = const_int(size) or 0
        large = [r for r in free if r.constant >= new]
        region = min(large, key=lambda r: r.constant) if large else max(free, key=lambda r: r.constant)
        if not large:
            region.size = size
        region.busy_until = used[1]
        return self.memory.regions.index(region)

    def _bytes(self, buffer: Buffer) -> Expr:
        size: Expr = IntImm(dt.itemsize(buffer.dtype), "int64")
        less = False
        for extent in stored_shape(buffer):
            if any(isinstance(n, Var) and n not in self.symbols for n in walk(extent)):
                extent = self._largest(buffer, extent)
            less |= not isinstance(extent, IntImm) and may_be_negative(extent)
            if isinstance(size, IntImm) and isinstance(extent, IntImm):
                size = IntImm(size.value * max(extent.value, 0), "int64")
            else:
                size = Binary("mul", size, extent if extent.dtype == "int64" else Cast(extent, "int64"))
        given = any(isinstance(n, Var) and n not in self.dimensions for n in walk(size))
        if given or less:
            size = Binary("max", size, IntImm(0, "int64"))  # a scalar argument may be negative, or a size less 3
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
