"""What the parser knows while inside a function: names in scope, the frames around it, the loops it is in."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from crossfarm.frontends.tvmscript.dialect import Aliases
from crossfarm.frontends.tvmscript.source import Source, nearest
from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import Expr, IntImm, Range, Var
from crossfarm.ir.stmt import AttrValue, IterVar, MatchBufferRegion, Stmt

#: dtype of a size that the text names but gives no dtype: what TVM's graph functions use.
SIZE_DTYPE = "int64"


@dataclass(frozen=True)
class View:
    """Another shape over a buffer's elements (``T.decl_buffer(..., data=A.data)``), kept as compact row-major."""

    buffer: Buffer
    shape: tuple[Expr, ...]


@dataclass(frozen=True)
class HandleParam:
    """A ``T.handle`` parameter, waiting for its ``T.match_buffer``."""

    name: str
    position: int


@dataclass(frozen=True)
class Cell:
    """A scalar that changes (``x: T.int32`` without a value), kept as a buffer of one element."""

    buffer: Buffer

    @property
    def indices(self) -> tuple[Expr, ...]:
        return (IntImm(0),)


#: What a name may stand for. Plain numbers and strings are constants captured by a decorator.
Binding = Expr | Buffer | View | Cell | HandleParam | bool | int | float | str


#: What an expression evaluates to: an Expr, or a Python constant without a dtype yet.
Value = Expr | bool | int | float | str


@dataclass
class BlockFrame:
    """A block under construction; the root frame of a function is one too."""

    name: str
    node: ast.AST
    is_root: bool = False
    iter_vars: list[IterVar] = field(default_factory=list)
    iter_values: list[Expr] = field(default_factory=list)
    predicate: Expr | None = None
    reads: tuple[BufferRegion, ...] | None = None
    writes: tuple[BufferRegion, ...] | None = None
    init: Stmt | None = None
    alloc_buffers: list[Buffer] = field(default_factory=list)
    match_buffers: list[MatchBufferRegion] = field(default_factory=list)
    annotations: dict[str, AttrValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """What encloses the statement being parsed: ``function``, ``block``, or anything else (loop, if, init, …)."""

    kind: str


class FunctionContext:
    """State of parsing one function.

    Args:
        captured: names a decorator found outside the function; only plain constants, ``TypeVar``s and Targets count.
        evaluate: the grammar's entry for expressions, by which the constructs that expressions consist of come back to
            it. (The one for statements goes from each statement to those inside.)
    """

    def __init__(
        self,
        source: Source,
        aliases: Aliases,
        captured: Mapping[str, Any],
        evaluate: Callable[[FunctionContext, ast.expr], Value],
    ) -> None:
        self.source = source
        self.aliases = aliases
        self.captured = captured
        self._evaluate = evaluate
        self.scopes: list[dict[str, Binding]] = [{}]
        self.frames: list[Frame] = [Frame("function")]
        self.blocks: list[BlockFrame] = []
        self.loops: dict[Var, Range] = {}
        #: dtypes declared in the body (``n = T.int32()``) for names that the signature uses before.
        self.declared: dict[str, str] = {}
        self.params: list[Buffer | Var | None] = []
        self.attrs: dict[str, AttrValue] = {}
        #: Thread axes declared by ``T.env_thread``, by the name of their variable.
        self.env_threads: dict[str, str] = {}
        #: Variables that name values.
        self.lets: set[Expr] = set()
        self.has_blocks = False
        #: The text has blocks somewhere: allocations belong to the block around them.
        self.in_block_form = False

    def evaluate(self, node: ast.expr) -> Value:
        """The value of an expression. Raises ScriptError for anything outside the subset."""
        return self._evaluate(self, node)

    def lookup(self, name: str) -> Binding | None:
        """What ``name`` stands for, innermost scope first, then symbolic sizes, then captured constants."""
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        if name in self.declared:
            return self.define_size(name)
        value = self.captured.get(name)
        if isinstance(value, TypeVar):
            return self.define_size(name)
        if isinstance(value, (bool, int, float, str)):
            return value
        return None

    def define_size(self, name: str) -> Var:
        """A symbolic size, visible in the whole function, with the dtype its declaration gives it."""
        var = Var(name, self.declared.get(name, SIZE_DTYPE))
        self.scopes[0][name] = var
        return var

    def bind(self, name: str, value: Binding) -> None:
        """Names ``value`` in the innermost scope."""
        self.scopes[-1][name] = value

    def is_local(self, name: str) -> bool:
        return any(name in scope for scope in self.scopes)

    def resolve(self, node: ast.AST) -> str | None:
        """Canonical name of a dialect's construct, None for anything else (a local name hides a dialect's)."""
        root = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and self.is_local(root.id):
            return None
        return self.aliases.resolve(node)

    def undefined(self, node: ast.Name) -> Exception:
        names = {name for scope in self.scopes for name in scope}
        hint = nearest(node.id, names) or "declare a symbolic size as n = T.int64(), or quote it in the signature"
        return self.source.error(node, f"undefined name {node.id!r}", construct=node.id, hint=hint)


class Scope:
    """``with Scope(ctx, "loop"):`` names bound inside end with it."""

    def __init__(self, ctx: FunctionContext, kind: str) -> None:
        self._ctx = ctx
        self._kind = kind

    def __enter__(self) -> None:
        self._ctx.scopes.append({})
        self._ctx.frames.append(Frame(self._kind))

    def __exit__(self, *_: object) -> None:
        self._ctx.scopes.pop()
        self._ctx.frames.pop()


def spelled(ctx: FunctionContext, node: ast.AST) -> str:
    """A construct as the text spells it, shortened: for messages."""
    try:
        text = ast.unparse(node)
    except (ValueError, RecursionError):
        return type(node).__name__
    return text if len(text) <= 60 else text[:57] + "..."
