"""How loops run, what is noted on loops and blocks, and where buffers live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from crossfarm.ir import ops
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import SCOPES, Buffer
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.schedule.independence import require_independent
from crossfarm.ir.schedule.touches import touches_under
from crossfarm.ir.schedule.tree import ancestors, find_block, find_loop, refuse, replace_stmt, statements
from crossfarm.ir.stmt import AttrValue, Block, BlockRealize, For, Stmt
from crossfarm.ir.verify.statements import THREAD_TAGS, attribute_problem
from crossfarm.ir.visitor import Substitute, walk


def parallel(func: PrimFunc, loop: Var) -> tuple[PrimFunc, None]:
    """The loop's iterations on several threads."""
    return _marked(func, loop, "parallel", "parallel"), None


def vectorize(func: PrimFunc, loop: Var) -> tuple[PrimFunc, None]:
    """The loop's iterations as lanes of vectors."""
    node = find_loop(func, loop, "vectorize")
    if const_int(node.extent) is None:
        hint = "split it by a constant factor and vectorize the inner loop"
        refuse("vectorize", f"loop {loop.name} has no constant extent", at=node, hint=hint)
    return _marked(func, loop, "vectorized", "vectorize"), None


def unroll(func: PrimFunc, loop: Var) -> tuple[PrimFunc, None]:
    """The loop's iterations written out one after the other."""
    node = find_loop(func, loop, "unroll")
    _require_serial(node, "unroll")
    return replace_stmt(func, node, replace(node, kind="unrolled")), None


def bind(func: PrimFunc, loop: Var, thread_axis: str) -> tuple[PrimFunc, None]:
    """The loop's iterations on an axis of a device's thread grid."""
    node = find_loop(func, loop, "bind")
    if thread_axis not in THREAD_TAGS:
        hint = f"axes are {', '.join(THREAD_TAGS)}"
        refuse("bind", f"there is no thread axis {thread_axis!r}", at=node, hint=hint)
    _require_cooperation(func, node, thread_axis)
    return _marked(func, loop, "thread_binding", "bind", thread_axis), None


def annotate(func: PrimFunc, at: str | Var, ann_key: str, ann_val: AttrValue) -> tuple[PrimFunc, None]:
    """Notes ``ann_val`` under ``ann_key`` on a block or loop; an older note of that key is replaced."""
    problem = attribute_problem({ann_key: ann_val})
    if problem is not None:
        refuse("annotate", problem)
    stmt = _noted(func, at, "annotate")
    known = {n for n in walk(func.body) if isinstance(n, Var)}
    stray = next((n for e in _expressions(ann_val) for n in walk(e) if isinstance(n, Var) and n not in known), None)
    if stray is not None:
        refuse("annotate", f"the variable {stray.name} is not one of the function's")
    return _with_annotations(func, stmt, {**stmt.annotations, ann_key: ann_val}), None


def unannotate(func: PrimFunc, at: str | Var, ann_key: str) -> tuple[PrimFunc, None]:
    """Removes the note ``ann_key`` from a block or loop."""
    stmt = _noted(func, at, "unannotate")
    if ann_key not in stmt.annotations:
        known = ", ".join(stmt.annotations) or "none"
        refuse("unannotate", f"there is no annotation {ann_key!r}; there are: {known}", at=stmt)
    return _with_annotations(func, stmt, {k: v for k, v in stmt.annotations.items() if k != ann_key}), None


def set_scope(func: PrimFunc, block: str, buffer_index: int, scope: str) -> tuple[PrimFunc, None]:
    """Moves a temporary that ``block`` writes to another memory scope."""
    realize, buffer = _temporary(func, block, buffer_index, "set_scope")
    if scope not in SCOPES:
        refuse("set_scope", f"there is no memory scope {scope!r}", at=realize, hint=f"scopes are {', '.join(SCOPES)}")
    return _with_buffer(func, buffer, replace(buffer, scope=scope)), None


def storage_align(
    func: PrimFunc, block: str, buffer_index: int, axis: int, factor: int, offset: int
) -> tuple[PrimFunc, None]:
    """Spaces a temporary's rows so that the stride of ``axis`` is ``offset`` modulo ``factor``."""
    realize, buffer = _temporary(func, block, buffer_index, "storage_align")
    rank = len(buffer.shape)
    place = axis + rank if axis < 0 else axis
    if not 0 <= place < rank - 1:
        refuse("storage_align", f"axis {axis} of {buffer.name} has no stride to choose", at=realize)
    if factor <= 0 or not 0 <= offset < factor:
        refuse("storage_align", f"a stride cannot be {offset} modulo {factor}", at=realize)
    shape = [const_int(dim) for dim in buffer.shape]
    strides = [1] * rank
    for dim in reversed(range(rank - 1)):
        extent = shape[dim + 1]
        if extent is None:
            refuse("storage_align", f"{buffer.name} has a symbolic dimension inside axis {axis}", at=realize)
        have = const_int(buffer.strides[dim]) if buffer.strides else None
        strides[dim] = have if have is not None else strides[dim + 1] * extent
        if dim == place:
            strides[dim] += (offset - strides[dim]) % factor
        elif dim < place:
            strides[dim] = strides[dim + 1] * extent
    exprs = tuple(ops.const(s, dim.dtype) for s, dim in zip(strides, buffer.shape))
    return _with_buffer(func, buffer, replace(buffer, strides=exprs)), None


def _require_cooperation(func: PrimFunc, node: For, thread_axis: str) -> None:
    """Raises ScheduleError unless loops of one nest with one axis are threads of a group that work together.

    Each iteration of the outer loop runs all of the inner one, to the same effect; bound to one axis, each thread runs
    its own iteration of both. That is the same where all of them see what is stored, and none does it for itself.
    """
    if thread_axis.startswith("vthread"):
        return
    around = [s for s in ancestors(func, node) if isinstance(s, For) and s.thread == thread_axis]
    inside = [s for s in statements(node.body) if isinstance(s, For) and s.thread == thread_axis]
    for outer, inner in [*((other, node) for other in around), *((node, other) for other in inside)]:
        other = outer if inner is node else inner
        same = f"loop {other.var.name} in the same nest is bound to {thread_axis}"
        size = const_int(outer.extent)
        if not thread_axis.startswith("threadIdx") or size is None or size != const_int(inner.extent):
            refuse("bind", f"{same}, and they are not threads of one group", at=node)
        if any(n is outer.var for n in walk(inner.body)):
            refuse("bind", f"{same}, and what {inner.var.name} runs depends on {outer.var.name}", at=node)
        buffers = {a.buffer for a in touches_under(inner)}
        written = {a.buffer for a in touches_under(inner) if a.is_write}
        private = [*(b for b in buffers if b.scope == "local"), *(b for b in written if b.scope != "shared")]
        if private:
            refuse("bind", f"{same}, and {private[0].name} is not in memory that they share", at=node)


def _expressions(value: AttrValue) -> list[Expr]:
    """The expressions in an annotation's value."""
    if isinstance(value, Expr):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else ()
    return [e for item in items for e in _expressions(item)]


def _marked(func: PrimFunc, loop: Var, kind: str, primitive: str, thread: str = "") -> PrimFunc:
    node = find_loop(func, loop, primitive)
    _require_serial(node, primitive)
    require_independent(func, node, primitive, reduction=thread.startswith("threadIdx"))
    return replace_stmt(func, node, replace(node, kind=kind, thread=thread))


def _require_serial(node: For, primitive: str) -> None:
    if node.kind != "serial":
        refuse(primitive, f"loop {node.var.name} is {node.kind} already", at=node)


def _noted(func: PrimFunc, at: str | Var, primitive: str) -> Block | For:
    return find_block(func, at, primitive).block if isinstance(at, str) else find_loop(func, at, primitive)


def _with_annotations(func: PrimFunc, stmt: Block | For, annotations: Mapping[str, AttrValue]) -> PrimFunc:
    changed: Stmt = replace(stmt, annotations=annotations)
    return replace_stmt(func, stmt, changed)


def _temporary(func: PrimFunc, block: str, buffer_index: int, primitive: str) -> tuple[BlockRealize, Buffer]:
    """The buffer of a block's ``buffer_index``-th write, which must be one that the function allocates."""
    realize = find_block(func, block, primitive)
    writes = realize.block.writes
    if not 0 <= buffer_index < len(writes):
        refuse(
            primitive, f"block {block} has {len(writes)} written buffers, not one of index {buffer_index}", at=realize
        )
    buffer = writes[buffer_index].buffer
    if not any(isinstance(s, Block) and buffer in s.alloc_buffers for s in statements(func.body)):
        refuse(primitive, f"{buffer.name} is not allocated here: its place and layout are the caller's", at=realize)
    return realize, buffer


def _with_buffer(func: PrimFunc, old: Buffer, new: Buffer) -> PrimFunc:
    """The function with a temporary replaced everywhere, with the views of it in the same scope."""
    mapping: dict[object, object] = {old: new}
    views = [m for s in statements(func.body) if isinstance(s, Block) for m in s.match_buffers]
    for view in views:  # an outer block's views come first
        if view.source.buffer in mapping and view.buffer.scope != new.scope:
            mapping[view.buffer] = replace(view.buffer, scope=new.scope)
    return Substitute(mapping).mutate_function(func)
