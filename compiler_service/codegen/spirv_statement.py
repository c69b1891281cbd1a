"""Statements → SPIR-V: loops and conditions map one to one onto its structured control flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compiler_service.codegen import spirv_memory as memory
from compiler_service.codegen.kernel import elements
from compiler_service.codegen.spirv_code import Value
from compiler_service.codegen.spirv_convert import low_bits
from compiler_service.codegen.spirv_expr import ExprEmitter
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Binary, Call, Expr, IntImm, Not
from crossfarm.ir.stmt import (
    Allocate,
    AssertStmt,
    AttrStmt,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    SeqStmt,
    Stmt,
    While,
)


class StatementEmitter(ExprEmitter):
    """Emits statements of one kernel."""

    def statement(self, node: Stmt) -> None:
        """Emits ``node`` in the current block; nothing where a return came before."""
        if not self.c.terminated:
            getattr(self, f"do_{type(node).__name__}")(node)

    def do_SeqStmt(self, node: SeqStmt) -> None:
        for s in node.stmts:
            self.statement(s)

    def do_BufferStore(self, node: BufferStore) -> None:
        self.store(node.buffer, node.indices, self.emit(node.value))

    def do_LetStmt(self, node: LetStmt) -> None:
        self.bind(node.var, node.value)
        self.statement(node.body)

    def do_Evaluate(self, node: Evaluate) -> None:
        if isinstance(node.value, Call):
            self.emit(node.value)

    def do_AssertStmt(self, node: AssertStmt) -> None:
        raise BuildFailed(
            f"kernel {self.kernel!r}: an assertion reached the generator of SPIR-V: {node.message}",
            hint="a kernel reports failures by storing into its status buffer",
        )

    def do_AttrStmt(self, node: AttrStmt) -> None:
        self.statement(node.body)

    def do_Allocate(self, node: Allocate) -> None:
        if node.buffer.scope == "shared":
            raise BuildFailed(
                f"kernel {self.kernel!r}: shared buffer {node.buffer.name!r} is allocated inside the code of a thread",
                hint="shared memory is allocated right inside the loops over threads",
            )
        self.places[node.buffer] = memory.local_array(self.c, node.buffer, elements(node.buffer))
        self.statement(node.body)

    def do_IfThenElse(self, node: IfThenElse) -> None:
        other = node.else_body
        condition = self.emit(node.condition)
        otherwise = None if other is None else self._under(Not(node.condition), other)
        self.c.choose(condition, self._under(node.condition, node.then_body), otherwise)

    def _under(self, condition: Expr, body: Stmt) -> Callable[[], None]:
        def write() -> None:
            with self.known.scope():
                self.known.assume(condition)
                self.statement(body)

        return write

    def do_For(self, node: For) -> None:
        """A counter in 32 bits where the bounds are known to fit, whatever the variable's dtype."""
        if node.kind == "thread_binding":
            raise BuildFailed(
                f"kernel {self.kernel!r}: loop {node.var.name!r} is bound to {node.thread} inside the kernel's body",
                hint="loops over threads enclose the kernel: the pass split_kernels takes them off",
            )
        wide = dt.bits(node.var.dtype) == 64
        stop = node.extent if isinstance(node.min, IntImm) and node.min.value == 0 else _sum(node.min, node.extent)
        with self.known.scope():
            narrow = wide and self._fits(node.min) and self._fits(stop)
            start, end = (self.low_word(e) if narrow else self.emit(e) for e in (node.min, stop))
            self.known.bind_loop(node.var, node.min, node.extent)
            one = self.c.constant(start.dtype, 1)

            def body(variables: Sequence[Value]) -> None:
                if narrow:
                    self.bind_low(node.var, variables[0])
                else:
                    self.vars[node.var] = variables[0]
                    if wide:
                        self.low[node.var] = low_bits(self.c, variables[0], "int32")
                self.statement(node.body)

            self.c.loop(
                [start],
                lambda v: self.c.compare("lt", v[0], end),
                body,
                lambda v: [self.c.binary("add", v[0], one)],
                unroll=node.kind == "unrolled",
            )

    def do_While(self, node: While) -> None:
        self.c.loop([], lambda v: self.emit(node.condition), lambda v: self.statement(node.body), lambda v: [])


def _sum(a: Expr, b: Expr) -> Expr:
    return Binary("add", a, b)
