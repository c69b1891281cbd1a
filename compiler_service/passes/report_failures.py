"""What fails a call on a CPU at once is written down on a device, and read when the call is over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import address_of, callees_of, calls_of, is_caller
from crossfarm.ir.expr import Binary, BufferLoad, Call, Expr, IntImm, Let, Not, Select, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import (
    Allocate,
    AssertStmt,
    BlockRealize,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    SeqStmt,
    Stmt,
    While,
)
from crossfarm.ir.visitor import Mutator, children, seq, walk

if TYPE_CHECKING:
    from crossfarm.target import Target

#: Annotation of the allocation that holds a function's status: the messages of its nonzero values, in order. A function
#: that only calls others has it as an attribute, and the status as its first temporary.
FAILURES = "crossfarm.failures"
_DIVISIONS = ("div", "mod", "floordiv", "floormod")


@dataclass(frozen=True)
class ReportFailures:
    """Assertions, and integer divisions by data that may be zero, store a code into a status in global memory.

    Kernels cannot return early: the threads go on, and code generators divide by 1 instead of by 0. Whoever runs the
    kernels sets the status to 0 before and looks at it after them. Of several failures any one is told.

    Functions that are called by others get the status as their last parameter. Their kernels are there once, whoever
    launches them, so their codes are numbered together.
    """

    name: ClassVar[str] = "report_failures"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        called = callees_of(module.prim_funcs)
        messages: list[str] = []
        reporting: set[str] = set()

        def report(name: str, func: PrimFunc) -> PrimFunc:
            if name not in called:
                return _report(name, func)
            reporter = _Reporter(name, messages)
            body = reporter.mutate(func.body)
            if body is func.body:
                return func
            reporting.add(name)
            return replace(func, params=(*func.params, reporter.status), body=body)

        reported = map_functions(module, report)
        if not reporting:
            return reported
        callers = {
            n: _passing_status(f, module, reporting, messages) for n, f in module.prim_funcs.items() if is_caller(f)
        }
        return reported.with_functions({**reported.functions, **callers})


def _report(name: str, func: PrimFunc) -> PrimFunc:
    reporter = _Reporter(name, [])
    body = reporter.mutate(func.body)
    if not reporter.messages:
        return func
    return replace(func, body=Allocate(reporter.status, body, {FAILURES: tuple(reporter.messages)}))


def _passing_status(func: PrimFunc, module: IRModule, reporting: set[str], messages: list[str]) -> PrimFunc:
    """A function of calls that gives a status to those of its callees that report."""
    calls = calls_of(func)
    if not any(call.function in reporting for call in calls):
        return func
    status = _new_status()
    body = func.body
    assert isinstance(body, BlockRealize), "memory between calls is not laid out yet"
    after = []
    for call in calls:
        if call.function in reporting:
            count = len(module.prim_func(call.function).params)
            call = replace(call, args=(*call.args[:count], address_of(status), *call.args[count:]))
        after.append(call.statement())
    block = replace(body.block, body=seq(*after), alloc_buffers=(status, *body.block.alloc_buffers))
    return replace(func, body=replace(body, block=block), attrs={**func.attrs, FAILURES: tuple(messages)})


def _new_status() -> Buffer:
    """Memory of a status."""
    return Buffer("status", (IntImm(1, "int32"),), "int32")


class _Reporter(Mutator):
    """Puts checks into one function.

    Attributes:
        messages: of all statuses so far, in order; more are appended.
    """

    def __init__(self, function: str, messages: list[str]) -> None:
        self.function = function
        self.status = _new_status()
        self.messages = messages

    def mutate_AssertStmt(self, node: AssertStmt) -> Stmt:
        message = f"assertion failed in function {self.function!r}: {node.message}"
        return self._checked(SeqStmt(()), (node.condition,), IfThenElse(Not(node.condition), self._fails(message)))

    def mutate_BufferStore(self, node: BufferStore) -> Stmt:
        return self._checked(node, (*node.indices, node.value))

    def mutate_LetStmt(self, node: LetStmt) -> Stmt:
        return self._checked(self.mutate_children(node), (node.value,))

    def mutate_IfThenElse(self, node: IfThenElse) -> Stmt:
        return self._checked(self.mutate_children(node), (node.condition,))

    def mutate_For(self, node: For) -> Stmt:
        if node.kind == "thread_binding":
            return self.mutate_children(node)
        return self._checked(self.mutate_children(node), (node.min, node.extent))

    def mutate_While(self, node: While) -> Stmt:
        return self._checked(self.mutate_children(node), (node.condition,))

    def mutate_Evaluate(self, node: Evaluate) -> Stmt:
        return self._checked(node, (node.value,))

    def _checked(self, node: Stmt, evaluated: tuple[Expr, ...], more: Stmt | None = None) -> Stmt:
        checks: list[Stmt] = []
        for divisor in (d for expr in evaluated for d in _divisors(expr)):
            zero = Binary("eq", divisor, IntImm(0, divisor.dtype))
            checks.append(IfThenElse(zero, self._fails(f"integer division by zero in function {self.function!r}")))
        return seq(*checks, *((more,) if more is not None else ()), node) if checks or more is not None else node

    def _fails(self, message: str) -> Stmt:
        if message not in self.messages:
            self.messages.append(message)
        code = IntImm(self.messages.index(message) + 1, "int32")
        return BufferStore(self.status, code, (IntImm(0, "int32"),))


def _divisors(expr: Expr) -> Iterator[Expr]:
    """Divisors that are surely computed where ``expr`` is, and that only data or an argument can make zero."""
    if isinstance(expr, Binary) and expr.op in _DIVISIONS and dt.is_int(expr.dtype) and const_int(expr.b) is None:
        free = [n for n in walk(expr.b) if isinstance(n, Var)]
        if any(isinstance(n, BufferLoad) for n in walk(expr.b)) or free:
            yield expr.b
    for child in _evaluated(expr):
        yield from _divisors(child)


def _evaluated(expr: Expr) -> Iterator[Expr]:
    """The operands that are evaluated whatever their values are."""
    if isinstance(expr, Let):
        yield expr.value  # the body may use the variable, which only stands inside
    elif isinstance(expr, Select):
        yield expr.condition
    elif isinstance(expr, Binary) and expr.op in ("and", "or"):
        yield expr.a
    elif isinstance(expr, Call) and expr.op == "if_then_else":
        yield expr.args[0]
    else:
        for child in children(expr):
            if isinstance(child, Expr):
                yield child
