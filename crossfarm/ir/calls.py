"""Calls of one tensor program by another: ``call_function(name, one argument a parameter…, one value a size…)``.

A buffer's argument is the address of an element, ``address_of(B[0, 0])``, from which the callee's whole buffer lies in
one piece, whatever shape and dtype B has. Sizes of the callee that are no parameters come last, as int64.

Functions that call are made by the compiler, of graph functions, and do nothing else: their body is a ``root`` block of
such calls in order, with the memory between them as its buffers, and once that is laid out, the same in lowered form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from crossfarm.ir import ops
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Call, Expr, IntImm, StringImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.stmt import Allocate, AttrStmt, BlockRealize, Evaluate, SeqStmt, Stmt

#: Attribute of a function that does nothing but call others.
CALLS = "crossfarm.calls"
#: Key of an ``AttrStmt`` around a call: the nodes of the model that it computes, for people.
ORIGIN = "crossfarm.origin"


@dataclass(frozen=True)
class ProgramCall:
    """One call.

    Attributes:
        function: the callee's name.
        args: one for each of its parameters and sizes, and what the compiler gives it beyond that.
        origin: "" for none.
    """

    function: str
    args: tuple[Expr, ...]
    origin: str = ""

    def statement(self) -> Stmt:
        """The call as a statement."""
        call = Evaluate(Call("call_function", (StringImm(self.function), *self.args), "int32"))
        return AttrStmt(ORIGIN, self.origin, call) if self.origin else call

    def values(self, callee: PrimFunc) -> dict[Var, Expr]:
        """What the callee's sizes and scalar parameters are, in their own dtypes."""
        scalars = {p: a for p, a in zip(callee.params, self.args) if isinstance(p, Var)}
        sizes = dict(zip(size_symbols(callee), self.args[len(callee.params) :]))
        return {var: ops.cast(value, var.dtype) for var, value in (scalars | sizes).items()}

    def buffers(self, callee: PrimFunc) -> Iterator[tuple[Buffer, BufferLoad]]:
        """The callee's buffers, and the elements that they begin with."""
        for param, arg in zip(callee.params, self.args):
            if isinstance(param, Buffer):
                yield param, element_of(arg)

    def extra(self, callee: PrimFunc) -> tuple[Expr, ...]:
        """The arguments beyond the callee's parameters and sizes."""
        return self.args[len(callee.params) + len(size_symbols(callee)) :]


def dimension_symbols(func: PrimFunc) -> tuple[Var, ...]:
    """The Vars that are bare dimensions of parameters, in order; their values are never negative."""
    found: dict[Var, None] = {}
    for param in func.params:
        if isinstance(param, Buffer):
            for extent in param.shape:
                if isinstance(extent, Var):
                    found.setdefault(extent)
    return tuple(found)


def size_symbols(func: PrimFunc) -> tuple[Var, ...]:
    """Those of ``dimension_symbols`` that are no parameters: what a call says after its arguments."""
    return tuple(v for v in dimension_symbols(func) if v not in func.params)


def address_of(buffer: Buffer, offset: Expr | None = None) -> Expr:
    """The address of the first element, or in a buffer of one dimension of the one at ``offset``."""
    zero = IntImm(0, "int64")
    indices = tuple(zero for _ in buffer.shape) if offset is None else (offset,)
    return Call("address_of", (BufferLoad(buffer, indices),), "handle")


def element_of(address: Expr) -> BufferLoad:
    """The element that an ``address_of`` is about."""
    element = address.args[0] if isinstance(address, Call) else None
    assert isinstance(element, BufferLoad), "a buffer is given by its address"
    return element


def calls_of(func: PrimFunc) -> list[ProgramCall]:
    """The calls that a function of calls makes, in order."""
    return [_call(stmt) for stmt in _statements(func.body)]


def is_caller(func: PrimFunc) -> bool:
    """True for a function that does nothing but call others."""
    return CALLS in func.attrs


def callees_of(functions: Mapping[str, PrimFunc]) -> dict[str, list[str]]:
    """Names of the functions that are called, each with those that call it, in order."""
    found: dict[str, dict[str, None]] = {}
    for name, func in functions.items():
        if is_caller(func):
            for call in calls_of(func):
                found.setdefault(call.function, {})[name] = None
    return {callee: list(callers) for callee, callers in found.items()}


def _statements(body: Stmt) -> tuple[Stmt, ...]:
    while isinstance(body, (Allocate, BlockRealize)):
        body = body.body if isinstance(body, Allocate) else body.block.body
    return body.stmts if isinstance(body, SeqStmt) else (body,)


def _call(stmt: Stmt) -> ProgramCall:
    origin = ""
    if isinstance(stmt, AttrStmt):
        origin, stmt = str(stmt.value), stmt.body
    call = stmt.value if isinstance(stmt, Evaluate) else None
    assert isinstance(call, Call), "a function of calls does nothing else"
    name, *args = call.args
    assert isinstance(name, StringImm)
    return ProgramCall(name.value, tuple(args), origin)
