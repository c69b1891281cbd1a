"""What depends on what: producers and consumers in a scope, and the kinds of blocks that primitives may move.

A *scope* is a block with the blocks directly inside it (not inside one another). A block in a scope is

* *complete* when all its axes are spatial, it alone writes what it writes, and it does not read that;
* a *reduction block* when it has an ``init``, its axes are spatial and reduce and bound one to one to the loops, it
  alone writes what it writes, and its reduce axes do not choose which element.

A scope is a *stage pipeline* when each of its blocks is one of these and nothing is read before it is written. These
are the conditions of TVM's TensorIR (Feng et al., ASPLOS 2023) under which instances may change their order.
"""

from __future__ import annotations

from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.ops import sub
from crossfarm.ir.regions import simplify
from crossfarm.ir.schedule.iter_map import IterMap
from crossfarm.ir.schedule.tree import children_of, loops_above, outermost_blocks, parent_block, refuse
from crossfarm.ir.stmt import BlockRealize
from crossfarm.ir.visitor import substitute, walk


def scope_blocks(func: PrimFunc, scope: BlockRealize) -> tuple[BlockRealize, ...]:
    """The blocks directly inside ``scope``'s block, in execution order; those of its init first."""
    return outermost_blocks(*children_of(scope.block))


def buffers_read(realize: BlockRealize) -> tuple[Buffer, ...]:
    """The buffers a block reads, in the order it declares them."""
    return tuple(dict.fromkeys(region.buffer for region in realize.block.reads))


def buffers_written(realize: BlockRealize) -> tuple[Buffer, ...]:
    """The buffers a block writes, in the order it declares them."""
    return tuple(dict.fromkeys(region.buffer for region in realize.block.writes))


def producers(func: PrimFunc, block: BlockRealize) -> tuple[BlockRealize, ...]:
    """The blocks before ``block`` in its scope that write a buffer it reads."""
    siblings = scope_blocks(func, parent_block(func, block, "get_producers"))
    needed = set(buffers_read(block))
    before = siblings[: siblings.index(block)]
    return tuple(b for b in before if needed.intersection(buffers_written(b)))


def consumers(func: PrimFunc, block: BlockRealize) -> tuple[BlockRealize, ...]:
    """The blocks after ``block`` in its scope that read a buffer it writes."""
    siblings = scope_blocks(func, parent_block(func, block, "get_consumers"))
    made = set(buffers_written(block))
    after = siblings[siblings.index(block) + 1 :]
    return tuple(b for b in after if made.intersection(buffers_read(b)))


def output_blocks(func: PrimFunc, scope: BlockRealize) -> tuple[BlockRealize, ...]:
    """The blocks of a scope that write a buffer which the scope does not itself allocate."""
    own = set(scope.block.alloc_buffers)
    return tuple(b for b in scope_blocks(func, scope) if any(w not in own for w in buffers_written(b)))


def is_output_block(func: PrimFunc, block: BlockRealize) -> bool:
    """True when what ``block`` writes is seen outside its scope."""
    return block in output_blocks(func, parent_block(func, block))


def why_not_complete(func: PrimFunc, block: BlockRealize) -> str | None:
    """None for a complete block, else which condition fails, in words."""
    odd = next((axis for axis in block.block.iter_vars if axis.kind != "spatial"), None)
    if odd is not None:
        return f"its axis {odd.var.name} is {odd.kind}, not spatial"
    both = set(buffers_read(block)).intersection(buffers_written(block))
    if both:
        return f"it reads {min(b.name for b in both)}, which it writes"
    return _why_not_dominant(func, block)


def why_not_reduction(func: PrimFunc, block: BlockRealize) -> str | None:
    """None for a reduction block, else which condition fails, in words."""
    if block.block.init is None:
        return "it has no init"
    odd = next((axis for axis in block.block.iter_vars if axis.kind not in ("spatial", "reduce")), None)
    if odd is not None:
        return f"its axis {odd.var.name} is {odd.kind}, neither spatial nor reduce"
    reduced = {axis.var for axis in block.block.iter_vars if axis.kind == "reduce"}
    for region in block.block.writes:
        used = next((n for r in region.region for e in (r.min, r.extent) for n in walk(e) if n in reduced), None)
        if isinstance(used, Var):
            return f"its reduce axis {used.name} chooses the element of {region.buffer.name}"
    return why_not_affine(func, block) or _why_not_dominant(func, block)


def is_complete_block(func: PrimFunc, block: BlockRealize) -> bool:
    """True when instances of ``block`` may run in any order, each computing elements of its own."""
    return why_not_complete(func, block) is None


def is_reduction_block(func: PrimFunc, block: BlockRealize) -> bool:
    """True when ``block`` initializes and then accumulates elements chosen by its spatial axes."""
    return why_not_reduction(func, block) is None


def why_not_affine(func: PrimFunc, block: BlockRealize) -> str | None:
    """None when different iterations of the loops in the scope give different axis values, else why not."""
    loops = loops_above(func, block)
    backwards = next((loop for loop in loops if const_int(loop.min) is None), None)
    if backwards is not None:
        return f"its loop {backwards.var.name} does not start at a constant"
    moved: dict[Var, Expr] = {loop.var: loop.var for loop in loops}
    values = [substitute(v, moved) for v in block.iter_values]
    problem = IterMap({loop.var: loop.extent for loop in loops}).injective(values)
    return None if problem is None else f"its axes are not bound one to one to the loops: {problem}"


def is_affine_binding(func: PrimFunc, block: BlockRealize) -> bool:
    """True when no two iterations of the loops in the scope are the same instance of ``block``."""
    return why_not_affine(func, block) is None


def require_complete(func: PrimFunc, block: BlockRealize, primitive: str) -> None:
    """Raises ScheduleError unless ``block`` is complete."""
    reason = why_not_complete(func, block)
    if reason is not None:
        refuse(primitive, f"block {block.block.name} is not complete: {reason}", at=block)


def require_reduction(func: PrimFunc, block: BlockRealize, primitive: str) -> None:
    """Raises ScheduleError unless ``block`` is a reduction block."""
    reason = why_not_reduction(func, block)
    if reason is not None:
        refuse(primitive, f"block {block.block.name} is not a reduction block: {reason}", at=block)


def require_complete_or_reduction(func: PrimFunc, block: BlockRealize, primitive: str) -> None:
    """Raises ScheduleError unless ``block`` is complete or a reduction block."""
    first, second = why_not_complete(func, block), why_not_reduction(func, block)
    if first is not None and second is not None:
        reason = f"neither complete ({first}) nor a reduction block ({second})"
        refuse(primitive, f"block {block.block.name} is {reason}", at=block)


def require_affine(func: PrimFunc, block: BlockRealize, primitive: str) -> None:
    """Raises ScheduleError unless the axes of ``block`` are bound one to one."""
    reason = why_not_affine(func, block)
    if reason is not None:
        refuse(primitive, f"block {block.block.name}: {reason}", at=block)


def require_stage_pipeline(func: PrimFunc, scope: BlockRealize, primitive: str) -> None:
    """Raises ScheduleError unless ``scope`` is a stage pipeline."""
    blocks = scope_blocks(func, scope)
    for position, block in enumerate(blocks):
        require_complete_or_reduction(func, block, primitive)
        read = set(buffers_read(block))
        for later in blocks[position + 1 :]:
            early = read.intersection(buffers_written(later))
            if early:
                names = f"{min(b.name for b in early)} before {later.block.name} writes it"
                refuse(primitive, f"block {block.block.name} reads {names}: no order of stages", at=block)


def require_not_output(func: PrimFunc, block: BlockRealize, primitive: str) -> None:
    """Raises ScheduleError when what ``block`` writes is seen outside its scope."""
    if is_output_block(func, block):
        refuse(primitive, f"block {block.block.name} writes an output of its scope", at=block)


def is_unit(extent: Expr) -> bool:
    """True for the constant 1."""
    return isinstance(extent, IntImm) and extent.value == 1


def same_size(a: Expr, b: Expr) -> bool:
    """True when two integer expressions are equal by their sums alone."""
    return a is b or const_int(simplify(sub(a, b))) == 0


def _why_not_dominant(func: PrimFunc, block: BlockRealize) -> str | None:
    """None when no other block of the scope writes what ``block`` writes."""
    made = set(buffers_written(block))
    for other in scope_blocks(func, parent_block(func, block)):
        shared = made.intersection(buffers_written(other)) if other is not block else set()
        if shared:
            return f"block {other.block.name} writes {min(b.name for b in shared)} too"
    return None
