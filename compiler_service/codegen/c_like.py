"""Kernels → text of a C-like language."""

from __future__ import annotations

from collections.abc import Sequence

from compiler_service.codegen.c_dialect import Dialect
from compiler_service.codegen.c_expr import ExprRenderer, bare, may_be_wide
from compiler_service.codegen.c_names import Names
from compiler_service.codegen.kernel import Kernel, elements
from compiler_service.passes.insert_barriers import is_barrier
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Interval, const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Call, IntImm
from crossfarm.ir.stmt import (
    Allocate,
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

#: A loop of at most so many iterations is unrolled by the device's compiler where the program asks for it.
_UNROLL = 64


def render_module(kernels: Sequence[Kernel], dialect: Dialect) -> str:
    """All kernels and what they need, one translation unit."""
    helpers: dict[str, str] = {}
    dtypes: set[str] = set()
    texts = []
    for kernel in kernels:
        renderer = _KernelRenderer(kernel, dialect, helpers)
        texts.append(renderer.text())
        dtypes |= renderer.dtypes
    parts = [dialect.prelude(frozenset(dtypes)), "".join(helpers.values()).rstrip(), *texts]
    return "\n\n".join(p for p in parts if p) + "\n"


class _KernelRenderer(ExprRenderer):
    def __init__(self, kernel: Kernel, dialect: Dialect, helpers: dict[str, str]) -> None:
        super().__init__(kernel.name, dialect, Names(dialect.reserved | {kernel.name}), helpers)
        self.source = kernel
        self.lines: list[str] = []
        self.depth = 1

    def text(self) -> str:
        kernel = self.source
        parameters = []
        for param in kernel.params:
            if isinstance(param, Buffer):
                const = param not in kernel.written
                pointer = self.dialect.pointer(self.memory_type(param.dtype), const, kernel.is_distinct(param))
                parameters.append(f"{pointer}{self.names.of(param)}")
                if may_be_wide(param):
                    self.wide.add(param)
            else:
                type_ = self.memory_type(param.dtype)
                parameters.append(f"{type_} {self.names.of(param)}")
        for buffer in kernel.shared:
            type_ = self.memory_type(buffer.dtype)
            self.line(f"{self.dialect.shared} {type_} {self.names.of(buffer)}[{max(1, elements(buffer))}];")
        for var, tag in kernel.threads.items():
            self.line(f"const {self.type(var.dtype)} {self.names.of(var)} = {self.dialect.index[tag]};")
            self.analyzer.bind(var, Interval(0, kernel.last_index(tag)))
        head = len(self.lines)
        self.statement(kernel.body)
        self.lines[head:head] = [f"  {type_} {name};" for type_, name in dict.fromkeys(self.declared)]
        signature = f"{self.dialect.kernel(kernel.group)} {kernel.name}({', '.join(parameters)})"
        return "\n".join([f"{signature} {{", *self.lines, "}"])

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def block(self, head: str, body: Stmt) -> None:
        self.line(f"{head} {{")
        self.depth += 1
        self.statement(body)
        self.depth -= 1
        self.line("}")

    # --- statements

    def statement(self, node: Stmt) -> None:
        getattr(self, f"_do_{type(node).__name__}")(node)

    def _do_SeqStmt(self, node: SeqStmt) -> None:
        for s in node.stmts:
            self.statement(s)

    def _do_AttrStmt(self, node: AttrStmt) -> None:
        self.statement(node.body)

    def _do_BufferStore(self, node: BufferStore) -> None:
        value = bare(self.emit(node.value))
        self.memory_type(node.buffer.dtype)
        if (lanes := dt.lanes_of(node.value.dtype)) > 1:
            assert self.dialect.vectors is not None, "type() refused the value"
            self.line(self.dialect.vectors.store(lanes, value, self.pointer(node.buffer, node.indices)))
            return
        self.line(f"{self.element(node.buffer, node.indices)} = {value};")

    def _do_LetStmt(self, node: LetStmt) -> None:
        self.line(f"const {self.type(node.var.dtype)} {self.names.of(node.var)} = {bare(self.emit(node.value))};")
        self.statement(node.body)

    def _do_Evaluate(self, node: Evaluate) -> None:
        if is_barrier(node):
            self.line(self.dialect.barrier)
        elif isinstance(node.value, Call) and node.value.op == "ret":
            self.line("return;")
        elif isinstance(node.value, Call) and node.value.op not in ("assume", "likely", "prefetch"):
            self.line(f"(void){self.emit(node.value)};")

    def _do_AssertStmt(self, node: Stmt) -> None:
        raise BuildFailed(f"kernel {self.kernel!r}: an assertion was left for {self.dialect.name}")

    def _do_Allocate(self, node: Allocate) -> None:
        buffer = node.buffer
        type_ = self.memory_type(buffer.dtype)
        self.line(f"{type_} {self.names.of(buffer)}[{max(1, elements(buffer))}];")
        self.statement(node.body)

    def _do_IfThenElse(self, node: IfThenElse) -> None:
        self.block(f"if ({self.condition(node.condition)})", node.then_body)
        if node.else_body is not None:
            self.lines[-1] += " else {"
            self.depth += 1
            self.statement(node.else_body)
            self.depth -= 1
            self.line("}")

    def _do_While(self, node: While) -> None:
        self.block(f"while ({self.condition(node.condition)})", node.body)

    def _do_For(self, node: For) -> None:
        name, type_ = self.names.of(node.var), self.type(node.var.dtype)
        start = bare(self.emit(node.min))
        count = const_int(node.extent)
        first = const_int(node.min)
        if count is not None and first is not None:
            stop = self.int_constant(first + count, node.var.dtype)
        else:
            extent = IntImm(0, "int32") if node.extent is None else node.extent
            stop = self.index(extent) if first == 0 else f"{self.index(node.min)} + {self.index(extent)}"
        if node.kind == "unrolled" and count is not None and count <= _UNROLL:
            self.line("#pragma unroll")
        with self.analyzer.scope():
            self.analyzer.bind_loop(node.var, node.min, node.extent)
            self.block(f"for ({type_} {name} = {start}; {name} < {stop}; ++{name})", node.body)
