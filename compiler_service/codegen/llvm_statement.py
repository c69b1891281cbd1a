"""Statements → LLVM IR."""

from __future__ import annotations

from dataclasses import dataclass, field

from compiler_service.codegen.llvm_abilities import Abilities
from compiler_service.codegen.llvm_expr import ExprEmitter
from compiler_service.codegen.llvm_stream import First, streamed
from compiler_service.codegen.llvm_text import Value, int_constant, memory_type, register_type
from compiler_service.passes.lower_blocks import compact_strides
from compiler_service.passes.workspace import STACK, stored_shape
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Call, IntImm
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
from crossfarm.ir.visitor import walk

WORKSPACE_ALIGN = 64


@dataclass
class Metadata:
    """Nodes that loops refer to, numbered from ``first``."""

    first: int
    nodes: list[str] = field(default_factory=list)

    def add(self, content: str) -> int:
        """A distinct node that begins with itself, as LLVM wants for loops; its number."""
        number = self.first + len(self.nodes)
        self.nodes.append(f"!{number} = distinct !{{!{number}, {content}}}")
        return number


class StatementEmitter(ExprEmitter):
    """Emits statements into a function that returns a status.

    Attributes:
        regions: pointers to the parts of the workspace or scratch memory, by number.
        attributes: what LLVM is told of each buffer's pointer where it is a parameter.
    """

    def __init__(self, function: str, can: Abilities, metadata: Metadata) -> None:
        super().__init__(function, can)
        self.metadata = metadata
        self.regions: list[Value] = []
        self.attributes: dict[Buffer, str] = {}
        self.has_streamed = False

    def statement(self, node: Stmt) -> None:
        """Emits ``node`` in the current block."""
        getattr(self, f"do_{type(node).__name__}")(node)

    def finish(self) -> str:
        """The function's body, with the blocks that return a failure's status."""
        if self.has_streamed and not self.b.terminated:
            self.b.do("fence seq_cst")  # nothing else orders stores around the caches before what others read
        self.b.terminate("ret i32 0")
        for code, block in self.failures.blocks.items():
            self.b.open(block)
            self.b.terminate(f"ret i32 {code}")
        return self.b.text()

    def parallel(self, node: For) -> None:
        """A loop whose iterations may run on several threads; here: one after the other."""
        self.loop(node, self.bounds(node))

    def call(self, node: Call) -> None:
        """A call of another function, which only a function's own body makes."""
        raise AssertionError(f"function {self.function!r} calls another one inside a parallel loop")

    def declare(self, buffer: Buffer) -> None:
        """Makes a buffer usable whose pointer is known."""
        self.strides[buffer] = buffer.strides or compact_strides(buffer.shape)
        if buffer.elem_offset is not None and not (
            isinstance(buffer.elem_offset, IntImm) and buffer.elem_offset.value == 0
        ):
            self.pointers[buffer] = self._element(buffer, self.index(buffer.elem_offset))

    def do_SeqStmt(self, node: SeqStmt) -> None:
        for s in node.stmts:
            self.statement(s)

    def do_BufferStore(self, node: BufferStore) -> None:
        self.store(node.buffer, node.indices, self.emit(node.value))

    def do_LetStmt(self, node: LetStmt) -> None:
        self.vars[node.var] = self.emit(node.value)
        self.statement(node.body)

    def do_Evaluate(self, node: Evaluate) -> None:
        if isinstance(node.value, Call) and node.value.op == "call_function":
            self.call(node.value)
        elif isinstance(node.value, Call) or self.is_unsafe(node.value):
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
            for extent in stored_shape(buffer):
                assert isinstance(extent, IntImm)
                count *= extent.value
            self.pointers[buffer] = self.b.alloca(memory_type(buffer.dtype), count, WORKSPACE_ALIGN)
        else:
            assert isinstance(place, int), f"{buffer.name} has no place: plan_workspace must run before code generation"
            self.pointers[buffer] = self.regions[place]
        self.attributes[buffer] = f" noalias nofree align {WORKSPACE_ALIGN}{size_attribute(buffer)}"
        self.declare(buffer)
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
        if node.kind == "thread_binding":
            raise BuildFailed(f"function {self.function!r}: loop {node.var.name!r} is bound to {node.thread} on a CPU")
        if node.kind == "parallel":
            self.parallel(node)
            return
        self._serial(node)

    def _serial(self, node: For) -> None:
        streams = None if self.streamed else streamed(node, self.strides)
        if streams is None:
            self.loop(node, self.bounds(node))
        else:
            self._streamed(node, *streams)

    def _streamed(self, node: For, width: int, stores: tuple[First, ...]) -> None:
        """The loop with stores around the caches where all of them are aligned, and as it is where not."""
        misplaced = int_constant("int64", 0)
        for buffer, indices in stores:
            address = self.b.value("int64", f"ptrtoint {self.address(buffer, indices).typed} to i64")
            misplaced = self.b.value("int64", f"or {misplaced.typed}, {address.text}")
        rest = self.b.value("int64", f"and {misplaced.typed}, {width - 1}")
        aligned = self.b.value("bool", f"icmp eq {rest.typed}, 0")
        around, through, end = self.b.name("around"), self.b.name("through"), self.b.name("end")
        self.b.branch(aligned, around, through)
        self.b.open(around)
        self.streamed = frozenset(buffer for buffer, _ in stores)
        self.loop(node, self.bounds(node))
        self.streamed = frozenset()
        self.has_streamed = True
        self.b.jump(end)
        self.b.open(through)
        self.loop(node, self.bounds(node))
        self.b.open(end)

    def bounds(self, node: For) -> tuple[Value, Value]:
        """First value of the loop's variable, and the one after its last."""
        dtype = node.var.dtype
        start = self.convert(self.emit(node.min), dtype)
        extent = self.convert(self.emit(node.extent), dtype)
        return start, self.b.value(dtype, f"add nsw {start.typed}, {extent.text}")

    def loop(self, node: For, bounds: tuple[Value, Value]) -> None:
        """The iterations within ``bounds``, in order. Tested at its head; LLVM rotates it."""
        start, stop = bounds
        dtype = node.var.dtype
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
        hint = self.loop_hint(node)
        self.b.terminate(f"br label %{head}" + (f", !llvm.loop !{self.metadata.add(hint)}" if hint else ""))
        self.b.lines[position] = (
            f"  {var.text} = phi {register_type(dtype)} [ {start.text}, %{before} ], [ {following}, %{latch} ]"
        )
        self.b.open(end)

    def loop_hint(self, node: For) -> str:
        """Metadata that tells LLVM what to do with a loop; "" for what it sees fit.

        Copies of a loop with loops inside bring a core nothing, and take LLVM's time.
        """
        if node.kind == "unrolled":
            return _UNROLL
        return _AS_IT_IS if any(isinstance(n, For) for n in walk(node.body)) else ""

    def do_While(self, node: While) -> None:
        head, body, end = self.b.name("loop"), self.b.name("body"), self.b.name("done")
        self.b.open(head)
        self.b.branch(self.emit(node.condition), body, end)
        self.b.open(body)
        self.statement(node.body)
        self.b.jump(head)
        self.b.open(end)


_UNROLL, _AS_IT_IS = '!{!"llvm.loop.unroll.enable"}', '!{!"llvm.loop.unroll.disable"}'


def size_attribute(buffer: Buffer) -> str:
    """How much memory is surely there, which lets LLVM read ahead of a guard; nothing where it is not constant."""
    size = 1
    for extent in buffer.shape:
        if not isinstance(extent, IntImm) or buffer.strides or buffer.elem_offset is not None:
            return ""
        size *= extent.value
    return f" dereferenceable({size * dt.itemsize(buffer.dtype)})" if size > 0 else ""
