"""Rules about blocks, their axes and the regions they declare."""

from __future__ import annotations

from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import BufferLoad, IntImm
from crossfarm.ir.schema import children
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, MatchBufferRegion
from crossfarm.ir.verify.rule import rule
from crossfarm.ir.verify.scope import Scope
from crossfarm.ir.visitor import walk


@rule("axis-values", BlockRealize, hint="bind each axis to one integer of its dtype")
def axis_values(node: BlockRealize, scope: Scope) -> str | None:
    """An axis gets a value of its own dtype."""
    for axis, value in zip(node.block.iter_vars, node.iter_values):
        if axis.var.dtype != value.dtype:
            return f"axis {axis.var.name} of block {node.block.name} is {axis.var.dtype}, its value {value.dtype}"
    return None


@rule("axis-domain", Block, hint="an axis, its domain's start and its extent are integers of one dtype")
def axis_domain(node: Block, scope: Scope) -> str | None:
    """An axis and its domain are scalar integers of one dtype."""
    for axis in node.iter_vars:
        dtypes = {axis.var.dtype, axis.dom.min.dtype, axis.dom.extent.dtype}
        if len(dtypes) > 1 or not dt.is_int(axis.var.dtype) or dt.lanes_of(axis.var.dtype) > 1:
            return f"axis {axis.var.name} of block {node.name} mixes {', '.join(sorted(dtypes))}"
    return None


@rule("axes-defined-once", Block, hint="give each axis a Var of its own; names may repeat")
def axes_defined_once(node: Block, scope: Scope) -> str | None:
    """An axis variable is bound in one place of a function."""
    seen = set(scope.once_variables)
    for axis in node.iter_vars:
        if axis.var in seen:
            return f"axis {axis.var.name} of block {node.name} is bound a second time"
        seen.add(axis.var)
    return None


@rule("buffers-defined-once", Block, hint="give each place a Buffer of its own; names may repeat")
def buffers_defined_once(node: Block, scope: Scope) -> str | None:
    """A buffer is allocated or matched in one place of a function."""
    seen = set(scope.once_buffers)
    for buffer in (*node.alloc_buffers, *(m.buffer for m in node.match_buffers)):
        if buffer in seen:
            return f"buffer {buffer.name} is defined a second time in block {node.name}"
        seen.add(buffer)
    return None


@rule("init-without-reduce", Block, hint="initialize by the spatial axes alone")
def init_without_reduce(node: Block, scope: Scope) -> str | None:
    """``init`` runs before the first step of a reduction: it cannot depend on which step it is."""
    if node.init is None:
        return None
    reduced = {axis.var for axis in node.iter_vars if axis.kind == "reduce"}
    used = next((n for n in walk(node.init) if n in reduced), None)
    return f"init of block {node.name} uses the reduce axis {getattr(used, 'name', '')}" if used is not None else None


@rule("reduction-target", Block, hint="the element a reduction adds to is chosen by spatial axes")
def reduction_target(node: Block, scope: Scope) -> str | None:
    """What ``init`` initializes is the same element at every step: its index in the body has no reduce axis."""
    if node.init is None:
        return None
    reduced = {axis.var for axis in node.iter_vars if axis.kind == "reduce"}
    started = {n.buffer for n in walk(node.init) if isinstance(n, BufferStore)}
    for n in walk(node.body):
        if isinstance(n, BufferStore) and n.buffer in started:
            used = next((v for i in n.indices for v in walk(i) if v in reduced), None)
            if used is not None:
                return f"block {node.name} reduces into an element that its reduce axis chooses"
    return None


@rule("region-shape", BufferRegion, hint="give one range for each dimension, of integers")
def region_shape(node: BufferRegion, scope: Scope) -> str | None:
    """A region has one range of scalar integers for each dimension of its buffer."""
    if len(node.region) != len(node.buffer.shape):
        return f"a region of {len(node.region)} ranges in {node.buffer.name} of {len(node.buffer.shape)} dimensions"
    for part in node.region:
        for e in (part.min, part.extent):
            if not dt.is_int(e.dtype) or dt.lanes_of(e.dtype) > 1:
                return f"a region of {node.buffer.name} is bounded by {e.dtype}"
    return None


@rule("region-in-bounds", BufferRegion, hint="a constant region lies inside its buffer")
def region_in_bounds(node: BufferRegion, scope: Scope) -> str | None:
    """A region with constant bounds lies inside a buffer with constant dimensions."""
    for axis, (part, size) in enumerate(zip(node.region, node.buffer.shape)):
        if not (isinstance(part.min, IntImm) and isinstance(part.extent, IntImm) and isinstance(size, IntImm)):
            continue
        low, high = part.min.value, part.min.value + part.extent.value
        if part.extent.value < 0 or (part.extent.value > 0 and not 0 <= low <= high <= size.value):
            return f"region {low}:{high} of {node.buffer.name} is outside dimension {axis} of {size.value}"
    return None


@rule(
    "match-agrees", MatchBufferRegion, hint="a view has its source's dtype and scope, and a shape that fits the region"
)
def match_agrees(node: MatchBufferRegion, scope: Scope) -> str | None:
    """A view has its source's dtype and scope, and at most as many dimensions; constant ones are the region's."""
    view, source = node.buffer, node.source.buffer
    if (view.dtype, view.scope) != (source.dtype, source.scope):
        return f"{view.name} ({view.dtype}, {view.scope}) views {source.name} ({source.dtype}, {source.scope})"
    extra = len(node.source.region) - len(view.shape)
    if extra < 0:
        return f"{view.name} has more dimensions than the region of {source.name}"
    for axis, part in enumerate(node.source.region):
        size: object = view.shape[axis - extra] if axis >= extra else None
        want = size.value if isinstance(size, IntImm) else 1 if size is None else None
        if want is not None and isinstance(part.extent, IntImm) and part.extent.value != want:
            return f"{view.name} has {want} elements where the region of {source.name} has {part.extent.value}"
    return None


@rule(
    "access-declared", BufferLoad, BufferStore, hint="list it in T.reads or T.writes, or leave both out to infer them"
)
def access_declared(node: BufferLoad | BufferStore, scope: Scope) -> str | None:
    """What a block touches outside itself is in its ``reads`` or ``writes``; the root block declares nothing.

    A reduction's own target may be in ``writes`` alone. Which elements are touched is compared where both the index
    and the region are constant.
    """
    if not scope.blocks or scope.blocks[-1].is_root:
        return None
    inner = scope.blocks[-1]
    buffer: Buffer = node.buffer
    viewed = buffer in inner.source_of
    buffer = inner.source_of.get(buffer, buffer)
    if not viewed and buffer in inner.own:
        return None
    store = isinstance(node, BufferStore)
    declared = inner.block.writes if store else (*inner.block.reads, *inner.block.writes)
    regions = [r for r in declared if r.buffer is buffer]
    where = "writes" if store else "reads"
    if not regions:
        return f"block {inner.block.name} uses {buffer.name} but does not list it in its {where}"
    if not viewed and all(_misses(node, region) for region in regions):
        return f"block {inner.block.name} uses an element of {buffer.name} outside the region in its {where}"
    return None


def _misses(node: BufferLoad | BufferStore, region: BufferRegion) -> bool:
    """True when a constant index is outside the region's constant range in some dimension."""
    return any(
        isinstance(index, IntImm)
        and isinstance(part.min, IntImm)
        and isinstance(part.extent, IntImm)
        and not part.min.value <= index.value < part.min.value + part.extent.value
        for index, part in zip(node.indices, region.region)
    )


def has_blocks(stmt: object) -> bool:
    """True when any block is in ``stmt``."""
    stack = [stmt]
    while stack:
        node = stack.pop()
        if isinstance(node, BlockRealize):
            return True
        stack.extend(child for _, child in children(node))
    return False
