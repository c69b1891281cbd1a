"""Rules about statements outside blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Expr, IntImm
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.stmt import Allocate, AttrStmt, Block, BufferStore, For, SeqStmt
from crossfarm.ir.verify.rule import rule
from crossfarm.ir.verify.scope import Scope

#: What a thread-bound loop may be bound to.
THREAD_TAGS = (
    *(f"{level}.{axis}" for level in ("blockIdx", "threadIdx", "vthread") for axis in "xyz"),
    "vthread",
)


@rule("store-agrees", BufferStore, hint="cast the value to the buffer's dtype, or broadcast it to the index's lanes")
def store_agrees(node: BufferStore, scope: Scope) -> str | None:
    """A stored value has the buffer's dtype, and as many lanes as the index."""
    lanes = max((dt.lanes_of(i.dtype) for i in node.indices), default=1)
    want = dt.with_lanes(node.buffer.dtype, lanes)
    have = node.value.dtype
    return None if have == want else f"{have} is stored to {want} of buffer {node.buffer.name}"


@rule("loop-dtype", For, hint="the variable, its start and its extent are integers of one dtype")
def loop_dtype(node: For, scope: Scope) -> str | None:
    """A loop's variable, start and extent are scalar integers of one dtype."""
    dtypes = (node.var.dtype, node.min.dtype, node.extent.dtype)
    if len(set(dtypes)) > 1 or not dt.is_int(dtypes[0]) or dt.lanes_of(dtypes[0]) > 1:
        return f"loop over {node.var.name} has {dtypes[0]} from {dtypes[1]} for {dtypes[2]}"
    return None


@rule("loop-threads", For, hint=f"tags are {', '.join(THREAD_TAGS)}; only T.thread_binding has one")
def loop_threads(node: For, scope: Scope) -> str | None:
    """A thread-bound loop has a known tag, any other has none."""
    if node.kind == "thread_binding":
        return None if node.thread in THREAD_TAGS else f"loop over {node.var.name} is bound to {node.thread!r}"
    return f"a {node.kind} loop has the thread tag {node.thread!r}" if node.thread else None


@rule("vector-loop-extent", For, hint="split the loop so that the vectorized part is constant")
def vector_loop_extent(node: For, scope: Scope) -> str | None:
    """A vectorized loop has a constant extent."""
    if node.kind == "vectorized" and not isinstance(node.extent, IntImm):
        return f"the vectorized loop over {node.var.name} has no constant extent"
    return None


@rule("sequence-flat", SeqStmt, hint="build sequences with crossfarm.ir.visitor.seq")
def sequence_flat(node: SeqStmt, scope: Scope) -> str | None:
    """A sequence has no sequence directly inside, and never exactly one statement."""
    if len(node.stmts) == 1:
        return "a sequence of one statement"
    return "a sequence inside a sequence" if any(isinstance(s, SeqStmt) for s in node.stmts) else None


@rule("attribute-values", PrimFunc, For, Block, Allocate, AttrStmt, hint="attributes are data: no code, no objects")
def attribute_values(node: Any, scope: Scope) -> str | None:
    """Attributes hold bool, int64, float, str, None, expressions, tuples of these, and mappings from str to these."""
    attrs = node.attrs if isinstance(node, PrimFunc) else node.value if isinstance(node, AttrStmt) else node.annotations
    return attribute_problem(attrs)


def attribute_problem(attrs: Any) -> str | None:
    """What in ``attrs`` is not plain data, or None."""
    stack = [attrs]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            bad = next((key for key in value if not isinstance(key, str)), None)
            if bad is not None:
                return f"an attribute's key is a {type(bad).__name__}"
            stack.extend(value.values())
        elif isinstance(value, tuple):
            stack.extend(value)
        elif isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 63:
            return f"the attribute value {value} does not fit int64"
        elif value is not None and not isinstance(value, bool | int | float | str | Expr):
            return f"an attribute holds a {type(value).__name__}"
    return None
