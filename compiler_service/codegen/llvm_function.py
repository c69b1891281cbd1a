"""A lowered PrimFunc → two LLVM functions: the body, and the exported entry that unpacks the call.

The body takes each buffer as a pointer of its own (``noalias`` where the program promises it), so that LLVM can keep
accumulators in registers and vectorize without runtime checks; temporaries in the workspace arrive the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler_service.codegen.llvm_dot import DotProducts
from compiler_service.codegen.llvm_expr import ExprEmitter
from compiler_service.codegen.llvm_half import HalfConversions
from compiler_service.codegen.llvm_text import Value, memory_type, register_type
from compiler_service.passes.lower_blocks import compact_strides
from compiler_service.passes.plan_workspace import STACK, workspace_plan
from compiler_service.symbols import function_symbols
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Call, IntImm, Var
from crossfarm.ir.function import PrimFunc
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

_WORKSPACE_ALIGN = 64


@dataclass(frozen=True)
class FunctionText:
    """LLVM IR of a function.

    Attributes:
        symbol: the exported name.
        text: both definitions.
        declarations: of the external functions it calls, by name.
        loops: metadata nodes its loops refer to.
        failures: messages of its nonzero statuses, in order.
    """

    symbol: str
    text: str
    declarations: dict[str, str]
    loops: list[str]
    failures: tuple[str, ...]


def emit_function(
    name: str, func: PrimFunc, half: HalfConversions, dots: DotProducts, first_metadata: int
) -> FunctionText:
    """LLVM IR of ``func``; its metadata is numbered from ``first_metadata``."""
    return _FunctionEmitter(name, func, half, dots, first_metadata).run()


class _FunctionEmitter(ExprEmitter):
    def __init__(
        self, name: str, func: PrimFunc, half: HalfConversions, dots: DotProducts, first_metadata: int
    ) -> None:
        super().__init__(name, half, dots)
        self.func = func
        self.first_metadata = first_metadata
        self.loops: list[str] = []

    def run(self) -> FunctionText:
        symbol = f"crossfarm_{self.name_in_symbol}"
        arguments = self._bind()
        self.statement(self.func.body)
        self.b.terminate("ret i32 0")
        for code, block in self.failures.blocks.items():
            self.b.open(block)
            self.b.terminate(f"ret i32 {code}")
        body = f'"{symbol}.body"'
        text = (
            f"define internal i32 @{body}({', '.join(arguments)}) #1 {{\n{self.b.text()}\n}}\n\n"
            f'define i32 @"{symbol}"(ptr %workspace, ptr %slots) #0 {{\n{self._entry(body)}\n}}\n'
        )
        return FunctionText(symbol, text, self.externs, self.loops, tuple(self.failures.messages))

    @property
    def name_in_symbol(self) -> str:
        """The function's name in ASCII: linkers and their scripts disagree on anything else."""
        return "".join(c if c.isascii() and (c.isalnum() or c == "_") else f"u{ord(c):x}_" for c in self.function)

    # --- parameters

    def _bind(self) -> list[str]:
        """Puts parameters, symbols and workspace buffers in scope; the body's parameter list."""
        noalias = " noalias" if self._promises_noalias() else ""
        arguments = []
        for i, param in enumerate(self.func.params):
            if isinstance(param, Var):
                self.vars[param] = Value(f"%p{i}", param.dtype)
                arguments.append(f"{register_type(param.dtype)} %p{i}")
            else:
                self.pointers[param] = Value(f"%p{i}", "handle")
                arguments.append(f"ptr{noalias} nofree{_size_attribute(param)} %p{i}")
        for i, symbol in enumerate(function_symbols(self.func)):
            self.vars.setdefault(symbol, Value(f"%s{i}", symbol.dtype))
            arguments.append(f"{register_type(symbol.dtype)} %s{i}")
        self.plan = workspace_plan(self.func)
        self.regions = [Value(f"%w{i}", "handle") for i in range(len(self.plan.offsets))]
        arguments.extend(f"ptr noalias nofree align {_WORKSPACE_ALIGN} {r.text}" for r in self.regions)
        for param in self.func.params:
            if isinstance(param, Buffer):
                self._declare(param)
        return arguments

    def _promises_noalias(self) -> bool:
        value = self.func.attrs.get("tir.noalias", False)
        return bool(value.value) if isinstance(value, IntImm) else bool(value)

    def _declare(self, buffer: Buffer) -> None:
        self.strides[buffer] = buffer.strides or compact_strides(buffer.shape)
        if buffer.elem_offset is not None and not (
            isinstance(buffer.elem_offset, IntImm) and buffer.elem_offset.value == 0
        ):
            self.pointers[buffer] = self._element(buffer, self.index(buffer.elem_offset))

    def _entry(self, body: str) -> str:
        """Code of the exported function: slots → arguments, offsets → pointers, then the call."""
        e = ExprEmitter(self.function, self.half, self.dots)
        e.failures = self.failures
        arguments: list[Value] = []

        def slot(position: int, dtype: str) -> Value:
            pointer = e.b.value("handle", f"getelementptr inbounds i64, ptr %slots, i64 {position}")
            return e.load(pointer, dtype) if dtype != "handle" else e.b.value(dtype, f"load ptr, ptr {pointer.text}")

        for i, param in enumerate(self.func.params):
            value = slot(i, param.dtype if isinstance(param, Var) else "handle")
            if isinstance(param, Var):
                e.vars[param] = value
            arguments.append(value)
        for i, symbol in enumerate(function_symbols(self.func)):
            value = slot(len(self.func.params) + i, "int64")
            narrow = e.convert(value, symbol.dtype)
            if symbol in e.vars:
                differ = e.binary("ne", e.vars[symbol], narrow)
                e.fail_if(
                    differ,
                    f"argument {symbol.name!r} of function {self.function!r} differs from the dimension of that name",
                )
            e.vars.setdefault(symbol, narrow)
            arguments.append(narrow)
        for offset in self.plan.offsets:
            arguments.append(e.b.value("handle", f"getelementptr inbounds i8, ptr %workspace, {e.index(offset).typed}"))
        status = e.b.value("int32", f"call i32 @{body}({', '.join(a.typed for a in arguments)})")
        e.b.terminate(f"ret i32 {status.text}")
        for code, block in self.failures.blocks.items():
            if any(f"label %{block}," in line for line in e.b.lines):
                e.b.open(block)
                e.b.terminate(f"ret i32 {code}")
        return e.b.text()

    # --- statements

    def statement(self, node: Stmt) -> None:
        getattr(self, f"do_{type(node).__name__}")(node)

    def do_SeqStmt(self, node: SeqStmt) -> None:
        for s in node.stmts:
            self.statement(s)

    def do_BufferStore(self, node: BufferStore) -> None:
        self.store(node.buffer, node.indices, self.emit(node.value))

    def do_LetStmt(self, node: LetStmt) -> None:
        self.vars[node.var] = self.emit(node.value)
        self.statement(node.body)

    def do_Evaluate(self, node: Evaluate) -> None:
        if isinstance(node.value, Call) or self.is_unsafe(node.value):
            self.emit(node.value)

    def do_AssertStmt(self, node: AssertStmt) -> None:
        holds = self.emit(node.condition)
        fails = self.b.value("bool", f"xor {holds.typed}, true")
        self.fail_if(fails, f"assertion failed in function {self.function!r}: {node.message}")

    def do_AttrStmt(self, node: AttrStmt) -> None:
        self.statement(node.body)

    def do_Allocate(self, node: Allocate) -> None:
        buffer = node.buffer
        place = node.annotations.get("place")
        if place == STACK:
            count = 1
            for extent in buffer.shape:
                assert isinstance(extent, IntImm)
                count *= extent.value
            self.pointers[buffer] = self.b.alloca(memory_type(buffer.dtype), count, _WORKSPACE_ALIGN)
        else:
            assert isinstance(place, int), f"{buffer.name} has no place: plan_workspace must run before code generation"
            self.pointers[buffer] = self.regions[place]
        self._declare(buffer)
        self.statement(node.body)

    def do_IfThenElse(self, node: IfThenElse) -> None:
        then, end = self.b.name("then"), self.b.name("end")
        other = self.b.name("else") if node.else_body is not None else end
        self.b.branch(self.emit(node.condition), then, other)
        self.b.open(then)
        self.statement(node.then_body)
        if node.else_body is not None:
            self.b.jump(end)
            self.b.open(other)
            self.statement(node.else_body)
        self.b.open(end)

    def do_For(self, node: For) -> None:
        """A loop tested at its head; LLVM rotates it."""
        if node.kind == "thread_binding":
            raise BuildFailed(f"function {self.function!r}: loop {node.var.name!r} is bound to {node.thread} on a CPU")
        dtype = node.var.dtype
        start = self.convert(self.emit(node.min), dtype)
        extent = self.convert(self.emit(node.extent), dtype)
        stop = self.b.value(dtype, f"add nsw {start.typed}, {extent.text}")
        head, body, end = self.b.name("loop"), self.b.name("body"), self.b.name("done")
        before = self.b.block
        self.b.open(head)
        following = self.b.name("%next")
        position = len(self.b.lines)
        var = self.b.value(dtype, "phi")
        more = self.b.value("bool", f"icmp {'s' if dt.is_signed(dtype) else 'u'}lt {var.typed}, {stop.text}")
        self.b.branch(more, body, end)
        self.b.open(body)
        self.vars[node.var] = var
        self.statement(node.body)
        self.b.do(f"{following} = add nsw {var.typed}, 1")
        latch = self.b.block
        self.b.terminate(f"br label %{head}{self._loop_metadata(node)}")
        self.b.lines[position] = (
            f"  {var.text} = phi {register_type(dtype)} [ {start.text}, %{before} ], [ {following}, %{latch} ]"
        )
        self.b.open(end)

    def do_While(self, node: While) -> None:
        head, body, end = self.b.name("loop"), self.b.name("body"), self.b.name("done")
        self.b.open(head)
        self.b.branch(self.emit(node.condition), body, end)
        self.b.open(body)
        self.statement(node.body)
        self.b.jump(head)
        self.b.open(end)

    def _loop_metadata(self, node: For) -> str:
        if node.kind != "unrolled":
            return ""
        number = self.first_metadata + len(self.loops)
        self.loops.append(f'!{number} = distinct !{{!{number}, !{{!"llvm.loop.unroll.enable"}}}}')
        return f", !llvm.loop !{number}"


def _size_attribute(buffer: Buffer) -> str:
    """How much memory is surely there, which lets LLVM read ahead of a guard; nothing where it is not constant."""
    size = 1
    for extent in buffer.shape:
        if not isinstance(extent, IntImm) or buffer.strides or buffer.elem_offset is not None:
            return ""
        size *= extent.value
    return f" dereferenceable({size * dt.itemsize(buffer.dtype)})" if size > 0 else ""
