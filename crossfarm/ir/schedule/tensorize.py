"""tensorize: a block whose content is what an intrinsic describes gets the intrinsic's implementation instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import IntImm, Range, Var
from crossfarm.ir.function import Param, PrimFunc
from crossfarm.ir.regions import Accesses, infer_accesses
from crossfarm.ir.schedule.blockize import blockize
from crossfarm.ir.schedule.fresh import fresh_copy
from crossfarm.ir.schedule.intrinsics import TensorIntrin, lookup
from crossfarm.ir.schedule.recognize import Mismatch, Place, recognize
from crossfarm.ir.schedule.tree import find_block, refuse, replace_stmt
from crossfarm.ir.stmt import Block, BlockRealize, MatchBufferRegion
from crossfarm.ir.visitor import substitute


def tensorize(
    func: PrimFunc, block_or_loop: str | Var, intrin: str, preserve_unit_iters: bool = True
) -> tuple[PrimFunc, str]:
    """A block or the subtree under a loop as ``intrin``; see ``Schedule.tensorize``."""
    intrinsic = lookup(intrin)
    if isinstance(block_or_loop, Var):
        func, name = blockize(func, block_or_loop, preserve_unit_iters)
    else:
        name = block_or_loop
    realize = find_block(func, name, "tensorize")
    try:
        places = recognize(intrinsic.desc, realize.block)
    except Mismatch as difference:
        refuse("tensorize", f"block {name} is not what intrinsic {intrin!r} describes: {difference}", at=realize)
    return replace_stmt(func, realize, _implemented(func, realize, intrinsic, places)), name


def _implemented(
    func: PrimFunc, realize: BlockRealize, intrinsic: TensorIntrin, places: dict[Buffer, Place]
) -> BlockRealize:
    """The block with the implementation as its body, whose parameters view what the description's stood for."""
    root = intrinsic.impl.body
    assert isinstance(root, BlockRealize), "the table takes functions in block form only"
    renewed: dict[Any, Any] = {}
    views = []
    for described, param in zip(intrinsic.desc.params, intrinsic.impl.params):
        assert isinstance(described, Buffer)
        assert isinstance(param, Buffer)
        renewed[param] = _view(param, places[described], renewed)
        views.append(MatchBufferRegion(renewed[param], _region(described, places[described])))
    copy = fresh_copy(func, replace(root, block=replace(root.block, reads=(), writes=())), renewed)
    assert isinstance(copy, BlockRealize)
    regions = {described: view.source for described, view in zip(intrinsic.desc.params, views)}
    accesses = _accesses(realize.block, intrinsic, regions)
    block = replace(
        realize.block,
        reads=accesses.reads,
        writes=accesses.writes,
        body=copy.block.body,
        alloc_buffers=(*realize.block.alloc_buffers, *copy.block.alloc_buffers),
        match_buffers=tuple(views),
    )
    return replace(realize, block=block)


def _view(param: Buffer, place: Place, renewed: dict[Any, Any]) -> Buffer:
    """A buffer for one use of a parameter, with symbols of its own for the strides and the offset it finds there."""
    for symbol in (*param.strides, param.elem_offset):
        if isinstance(symbol, Var):
            renewed.setdefault(symbol, Var(symbol.name, symbol.dtype))
    return replace(
        param,
        strides=tuple(substitute(stride, renewed) for stride in param.strides),
        elem_offset=None if param.elem_offset is None else substitute(param.elem_offset, renewed),
        scope=place.buffer.scope,
    )


def _region(described: Buffer, place: Place) -> BufferRegion:
    """The description's whole buffer in the program's; dimensions that only the program has are of one element."""
    sizes = [IntImm(1)] * (len(place.start) - len(described.shape))
    extents = [e.value for e in (*sizes, *described.shape) if isinstance(e, IntImm)]
    ranges = (Range(start, IntImm(extent, start.dtype)) for start, extent in zip(place.start, extents))
    return BufferRegion(place.buffer, tuple(ranges))


def _accesses(block: Block, intrinsic: TensorIntrin, regions: Mapping[Param, BufferRegion]) -> Accesses:
    """What the block reads and writes: the regions of the parameters that the description reads and writes."""
    root = intrinsic.desc.body
    assert isinstance(root, BlockRealize)
    touched = infer_accesses(root.block.body)
    writes = tuple(regions[w.buffer] for w in touched.writes)
    initialized = {w.buffer for w in writes} if block.init is not None else set()
    reads = (regions[r.buffer] for r in touched.reads)
    return Accesses(tuple(r for r in reads if r.buffer not in initialized), writes)
