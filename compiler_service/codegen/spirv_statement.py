"""Statements → SPIR-V: loops and conditions map one to one onto its structured control flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compiler_service.codegen import spirv_memory as memory
from compiler_service.codegen.kernel import elements
from compiler_service.codegen.spirv_code import Value
from compiler_service.codegen.spirv_convert import low_bits
from compiler_service.codegen.spirv_expr import ExprEmitter
from compiler_service.passes.copies import fresh_copy
from compiler_service.passes.unroll_loops import written_out
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Binary, Call, Expr, IntImm, Not, Var
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
from crossfarm.ir.visitor import children, seq, walk

#: Copies of an innermost loop's body, where a driver limits iterations: the first of these that will do.
_COPIES = (1, 2, 4, 8, 16)


class StatementEmitter(ExprEmitter):
    """Emits statements of one kernel.

    Attributes:
        copies: how many iterations of an innermost loop become one, if they are so many.
    """

    copies: int = 1

    def limit_iterations(self, body: Stmt, most: int) -> Stmt:
        """``body`` so that a thread's iterations are ``most`` at most, as far as they are known.

        The loops that are to be unrolled are written out first, then innermost ones in part.

        Raises:
            BuildFailed: that does not suffice.
        """
        if iterations(body) <= most:
            return body
        body = written_out(body)
        for self.copies in _COPIES:
            if (count := iterations(body, self.copies)) <= most:
                return body
        raise BuildFailed(
            f"kernel {self.kernel!r} runs {count:,} iterations of its loops, unrolled, in each thread, and the "
            f"driver of target {self.types.target.label} stops a thread's loops after {most:,} without a word",
            hint="bind more loops to threads; or build for the CPU (llvm) instead of its Vulkan driver",
        )

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
        if isinstance(node.value, Call) and node.value.op == "ret":
            self.c.leave()  # split_kernels saw to it that nobody waits for this thread
        elif isinstance(node.value, Call):
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
                self.assume(condition)
                self.statement(body)

        return write

    def do_For(self, node: For) -> None:
        if node.kind == "thread_binding":
            raise BuildFailed(
                f"kernel {self.kernel!r}: loop {node.var.name!r} is bound to {node.thread} inside the kernel's body",
                hint="loops over threads enclose the kernel: the pass split_kernels takes them off",
            )
        copies = unroll_factor(node, self.copies)
        self._loop(node if copies == 1 else _unrolled(node, copies))

    def _loop(self, node: For) -> None:
        """A counter in 32 bits where the bounds are known to fit, whatever the variable's dtype."""
        wide = dt.bits(node.var.dtype) == 64
        stop = node.extent if const_int(node.min) == 0 else Binary("add", node.min, node.extent)
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


def _unrolled(node: For, copies: int) -> For:
    """A loop whose iterations are ``copies`` of the loop's, a divisor of its extent."""
    dtype, count = node.var.dtype, const_int(node.extent)
    assert count is not None, "only loops of known extent are unrolled"
    outer = Var(node.var.name, dtype)
    bodies = []
    for k in range(copies):
        at: Expr = Binary("add", Binary("mul", outer, IntImm(copies, dtype)), IntImm(k, dtype))
        value = at if const_int(node.min) == 0 else Binary("add", node.min, at)
        bodies.append(fresh_copy(node.body, {node.var: value}))
    return For(outer, IntImm(0, dtype), IntImm(count // copies, dtype), seq(*bodies), "serial")


def unroll_factor(node: For, copies: int) -> int:
    """The largest divisor of an innermost loop's extent that is no more than ``copies``."""
    count = const_int(node.extent)
    if count is None or any(isinstance(n, (For, While)) for n in walk(node.body)):
        return 1
    return max(n for n in range(1, copies + 1) if count % n == 0)


def iterations(node: Stmt, copies: int = 1) -> int:
    """How many iterations all loops have, those of loops that depend on data or sizes counted as one."""
    if isinstance(node, For):
        count = max(const_int(node.extent) or 1, 1) // unroll_factor(node, copies)
        return count * (1 + iterations(node.body, copies))
    if isinstance(node, While):
        return 1 + iterations(node.body, copies)
    return sum(iterations(child, copies) for child in children(node) if isinstance(child, Stmt))
