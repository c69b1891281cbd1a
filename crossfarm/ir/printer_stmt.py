"""Statements as text. What holds for the rest of its scope prints flat where it is last, else as ``with``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from crossfarm.errors import InvalidModule
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Call, Expr, IntImm, Range, Var
from crossfarm.ir.intrinsics import INTRINSICS
from crossfarm.ir.printer_expr import ExprPrinter, quote
from crossfarm.ir.printer_names import Names
from crossfarm.ir.regions import key
from crossfarm.ir.stmt import (
    Allocate,
    AssertStmt,
    AttrStmt,
    Block,
    BlockRealize,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    IterVar,
    LetStmt,
    SeqStmt,
    Stmt,
    While,
)
from crossfarm.ir.visitor import walk

_LOOPS = {
    "serial": "T.serial",
    "parallel": "T.parallel",
    "vectorized": "T.vectorized",
    "unrolled": "T.unroll",
    "thread_binding": "T.thread_binding",
}
_REMAP = {"spatial": "S", "reduce": "R"}
_INDENT = "    "


class StmtPrinter(ExprPrinter):
    """Prints the statements of one function into ``lines``."""

    def __init__(self, names: Names, depth: int = 0) -> None:
        super().__init__(names)
        self.lines: list[str] = []
        self._depth = depth
        self._loops: dict[Var, Range] = {}

    def line(self, text: str) -> None:
        """One line at the current indentation."""
        self.lines.append(_INDENT * self._depth + text)

    @contextmanager
    def scope(self, header: str) -> Iterator[None]:
        """``header:`` and an indented body with names of its own; an empty body is ``pass``."""
        self.line(f"{header}:")
        self._depth += 1
        self.names.push()
        before = len(self.lines)
        yield
        if len(self.lines) == before:
            self.line("pass")
        self.names.pop()
        self._depth -= 1

    def body(self, stmt: Stmt) -> None:
        """A statement that ends its scope, so that what it opens may run on to the scope's end."""
        stmts = stmt.stmts if isinstance(stmt, SeqStmt) else (stmt,)
        for item in stmts[:-1]:
            self._stmt(item, last=False)
        if stmts:
            self._stmt(stmts[-1], last=True)

    def _stmt(self, node: Stmt, last: bool) -> None:
        method = getattr(self, f"_stmt_{type(node).__name__}", None)
        if method is None:
            raise InvalidModule(f"{type(node).__name__} has no printed form")
        if isinstance(node, (LetStmt, AttrStmt, Allocate)):
            method(node, last)
        else:
            method(node)

    def _stmt_SeqStmt(self, node: SeqStmt) -> None:
        if not node.stmts:
            self.line("pass")
        for item in node.stmts:  # nested in another: not well-formed, but printable
            self._stmt(item, last=False)

    def _stmt_BufferStore(self, node: BufferStore) -> None:
        value = self.expr(node.value)
        self.line(f"{self.names[node.buffer]}[{self.indices(node.indices)}] = {value}")

    def _stmt_Evaluate(self, node: Evaluate) -> None:
        effect = isinstance(node.value, Call) and node.value.op in INTRINSICS and not INTRINSICS[node.value.op].pure
        text = self.expr(node.value)
        self.line(text if effect else f"T.evaluate({text})")

    def _stmt_AssertStmt(self, node: AssertStmt) -> None:
        self.line(f"assert {self.expr(node.condition)}, {quote(node.message)}")

    def _stmt_While(self, node: While) -> None:
        with self.scope(f"while {self.expr(node.condition)}"):
            self.body(node.body)

    def _stmt_IfThenElse(self, node: IfThenElse) -> None:
        word = "if"
        current: Stmt | None = node
        while isinstance(current, IfThenElse):
            with self.scope(f"{word} {self.expr(current.condition)}"):
                self.body(current.then_body)
            word, current = "elif", current.else_body
        if current is not None:
            with self.scope("else"):
                self.body(current)

    def _stmt_For(self, node: For) -> None:
        nest = _grid(node)
        extents = [self.expr(loop.extent) for loop in nest]
        header = f"T.grid({', '.join(extents)})" if len(nest) > 1 else self._loop(node)
        targets: list[str] = []
        self.names.push()
        for loop in nest:
            targets.append(self.names.define(loop.var))
            self._loops[loop.var] = Range(loop.min, loop.extent)
        with self.scope(f"for {', '.join(targets)} in {header}"):
            self.body(nest[-1].body)
        self.names.pop()

    def _loop(self, node: For) -> str:
        start = isinstance(node.min, IntImm) and node.min.value == 0 and node.min.dtype == node.extent.dtype
        bounds = (
            self.expr(node.extent) if start else f"{self.expr(node.min)}, {self.stop(Range(node.min, node.extent))}"
        )
        thread = f", thread={quote(node.thread)}" if node.kind == "thread_binding" else ""
        annotations = f", annotations={self.mapping(node.annotations)}" if node.annotations else ""
        name = "range" if node.kind == "serial" and not annotations else _LOOPS[node.kind]
        return f"{name}({bounds}{thread}{annotations})"

    def _stmt_LetStmt(self, node: LetStmt, last: bool) -> None:
        value = self.expr(node.value)
        if last:
            self.line(f"{self.names.define(node.var)}: T.{node.var.dtype} = {value}")
            self.body(node.body)
            return
        self.names.push()
        name = self.names.define(node.var)
        with self.scope(f"with T.LetStmt({self.typed(node.value)}) as {name}"):
            self.body(node.body)
        self.names.pop()

    def _stmt_AttrStmt(self, node: AttrStmt, last: bool) -> None:
        text = f"T.attr({quote(node.node)}, {quote(node.key)}, {self.value(node.value)})"
        if last:
            self.line(text)
            self.body(node.body)
            return
        with self.scope(f"with {text}"):
            self.body(node.body)

    def _stmt_Allocate(self, node: Allocate, last: bool) -> None:
        """``T.allocate`` says shape, dtype and scope; what else a buffer can have needs ``T.decl_buffer``."""
        buffer = node.buffer
        if node.annotations or _is_plain(buffer):
            annotations = f", annotations={self.mapping(node.annotations)}" if node.annotations else ""
            shape = f"[{self.exprs(buffer.shape)}]"
            text = f"T.allocate({shape}, {quote(buffer.dtype)}, {quote(buffer.scope)}{annotations})"
        else:
            text = f"T.decl_buffer({self.buffer(buffer)})"
        if last:
            self.line(f"{self.names.define(buffer)} = {text}")
            self.body(node.body)
            return
        self.names.push()
        name = self.names.define(buffer)
        with self.scope(f"with {text} as {name}"):
            self.body(node.body)
        self.names.pop()

    def _stmt_Block(self, node: Block) -> None:
        raise InvalidModule(f"the block {node.name!r} stands without a BlockRealize and has no printed form")

    def _stmt_BlockRealize(self, node: BlockRealize) -> None:
        block = node.block
        with self.scope(f"with T.block({quote(block.name)})"):
            self._axes(block.iter_vars, node.iter_values)
            if not (isinstance(node.predicate, IntImm) and node.predicate.value == 1):
                self.line(f"T.where({self.expr(node.predicate)})")
            self.line(f"T.reads({', '.join(map(self.region, block.reads))})")
            self.line(f"T.writes({', '.join(map(self.region, block.writes))})")
            self.block_content(block)

    def block_content(self, block: Block) -> None:
        """What follows a block's axes and regions; all there is of an implicit root."""
        if block.annotations:
            self.line(f"T.block_attr({self.mapping(block.annotations)})")
        for buffer in block.alloc_buffers:
            self.line(f"{self.names.define(buffer)} = T.alloc_buffer({self.buffer(buffer)})")
        for match in block.match_buffers:
            self.declare_sizes((match.buffer,))
            source = self.region(match.source)
            name = self.names.define(match.buffer)
            self.line(f"{name} = T.match_buffer({source}, {self.buffer(match.buffer, scope=True)})")
        if block.init is not None:
            with self.scope("with T.init()"):
                self.body(block.init)
        self.body(block.body)

    def buffer(self, buffer: Buffer, *, scope: bool = False) -> str:
        """The arguments that make ``buffer``; its dtype is always written, the rest where it is not the default."""
        parts = [self.tuple_of(buffer.shape), quote(buffer.dtype)]
        if buffer.strides:
            parts.append(f"strides={self.tuple_of(buffer.strides)}")
        if buffer.elem_offset is not None:
            parts.append(f"elem_offset={self.expr(buffer.elem_offset)}")
        if buffer.scope != "global" or scope:
            parts.append(f"scope={quote(buffer.scope)}")
        if buffer.align != 64:
            parts.append(f"align={buffer.align}")
        return ", ".join(parts)

    def declare_sizes(self, buffers: Sequence[Buffer]) -> None:
        """Declares the variables that matching ``buffers`` defines: those their shapes use and nothing defined yet."""
        for buffer in buffers:
            parts = (*buffer.shape, *buffer.strides, *((buffer.elem_offset,) if buffer.elem_offset is not None else ()))
            for part in parts:
                for node in walk(part):
                    if isinstance(node, Var) and node not in self.names:
                        self.line(f"{self.names.define(node)} = T.{node.dtype}()")

    def _axes(self, axes: tuple[IterVar, ...], values: tuple[Expr, ...]) -> None:
        """Axes in order; runs of two or more that are plainly bound to loops become one remap."""
        position = 0
        while position < len(axes):
            end = position
            while end < len(axes) and self._is_remap(axes[end], values[end]):
                end += 1
            if end - position >= 2:
                self._remap(axes[position:end], values[position:end])
                position = end
                continue
            self._axis(axes[position], values[position])
            position += 1

    def _is_remap(self, axis: IterVar, value: Expr) -> bool:
        if axis.kind not in _REMAP or not isinstance(value, Var) or value not in self._loops:
            return False
        loop = self._loops[value]
        return axis.var.dtype == value.dtype and key((loop.min, loop.extent)) == key((axis.dom.min, axis.dom.extent))

    def _remap(self, axes: tuple[IterVar, ...], values: tuple[Expr, ...]) -> None:
        loops = self.exprs(values)
        kinds = "".join(_REMAP[axis.kind] for axis in axes)
        names = ", ".join(self.names.define(axis.var) for axis in axes)
        self.line(f"{names} = T.axis.remap({quote(kinds)}, [{loops}])")

    def _axis(self, axis: IterVar, value: Expr) -> None:
        dom = axis.dom
        if isinstance(dom.min, IntImm) and dom.min.value == 0:
            extent = self.expr(dom.extent)
        else:
            extent = f"({self.expr(dom.min)}, {self.stop(dom)})"
        text = self.expr(value)
        self.line(f"{self.names.define(axis.var)} = T.axis.{axis.kind}({extent}, {text})")


def _is_plain(buffer: Buffer) -> bool:
    return not buffer.strides and buffer.elem_offset is None and buffer.align == 64


def _grid(node: For) -> list[For]:
    """The loops that one ``T.grid`` can stand for: plain, from zero, no extent using a variable of the grid."""
    nest = [node]
    if not _in_grid(node):
        return nest
    inner = node.body
    while isinstance(inner, For) and _in_grid(inner) and not _uses(inner.extent, [loop.var for loop in nest]):
        nest.append(inner)
        inner = inner.body
    return nest


def _in_grid(node: For) -> bool:
    start = isinstance(node.min, IntImm) and node.min.value == 0 and node.min.dtype == node.extent.dtype
    return node.kind == "serial" and not node.annotations and start


def _uses(value: Expr, variables: list[Var]) -> bool:
    return any(isinstance(item, Var) and item in variables for item in walk(value))
