"""Copies of a buffer before what reads it (``cache_read``) and after what writes it (``cache_write``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from crossfarm.ir.buffer import SCOPES, Buffer, BufferRegion
from crossfarm.ir.expr import BufferLoad
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.schedule.copied_regions import region_argument, region_at, united, views_of, why_not_written
from crossfarm.ir.schedule.dependencies import buffers_read, buffers_written, scope_blocks
from crossfarm.ir.schedule.nests import (
    insert,
    place_after,
    place_before,
    refuse_bare_access,
    refuse_taken_address,
    store_nest,
)
from crossfarm.ir.schedule.tree import find_block, parent_block, refuse, unique_name
from crossfarm.ir.stmt import BlockRealize, BufferStore, Stmt
from crossfarm.ir.visitor import substitute


def cache_read(
    func: PrimFunc, block: str, read_index: int, scope: str, consumer_blocks: Sequence[str] | None = None
) -> tuple[PrimFunc, str]:
    """Consumers read a copy, made before the first of them; the name of the block that copies.

    The copy has the buffer's shape and holds what the consumers read, all of a dimension where that cannot be told.
    It is made as far out in the block's scope as the buffer's producers allow.

    Args:
        read_index: which of the block's reads.
        scope: memory of the copy, one of SCOPES.
        consumer_blocks: blocks of the scope that read the copy; None for all that read the buffer.

    Raises:
        ScheduleError: the block writes the buffer too, a consumer is elsewhere, or no place is after the producers
            and before the consumers.
    """
    realize = find_block(func, block, "cache_read")
    buffer = region_argument(realize, "read", read_index, "cache_read").buffer
    outer = parent_block(func, realize, "cache_read")
    _check_copied(func, outer, buffer, scope, "cache_read")
    siblings = scope_blocks(func, outer)
    writers = [b for b in siblings if buffer in buffers_written(b)]
    if realize in writers:
        refuse(
            "cache_read",
            f"block {block} writes {buffer.name} too: it would read its own results late",
            at=realize,
            hint="use cache_write",
        )
    consumers = _consumers(func, siblings, realize, buffer, consumer_blocks, "cache_read")
    place = place_before(func, outer, consumers, writers, "cache_read", buffer)
    copied = united([region_at(func, outer, c, place.anchor, buffer, "read") for c in consumers])
    cache = copy_of(func, buffer, scope)
    name = unique_name(func, cache.name)
    nest = _copy(name, buffer, cache, copied)
    return (
        insert(
            func,
            outer,
            place,
            nest,
            before=True,
            rewritten={c: _redirected(c, buffer, cache) for c in consumers},
            allocated=(cache,),
        ),
        name,
    )


def cache_write(
    func: PrimFunc, block: str, write_index: int, scope: str, consumer_blocks: Sequence[str] | None = None
) -> tuple[PrimFunc, str]:
    """The block computes into a copy, which is written to the buffer right after; the name of the block that copies.

    Args:
        write_index: which of the block's writes.
        scope: memory of the copy, one of SCOPES.
        consumer_blocks: blocks of the scope that read the copy and not the buffer.

    Raises:
        ScheduleError: another block of the scope writes the buffer, or the block may leave elements of the region
            that would be copied unwritten.
    """
    realize = find_block(func, block, "cache_write")
    buffer = region_argument(realize, "write", write_index, "cache_write").buffer
    outer = parent_block(func, realize, "cache_write")
    _check_copied(func, outer, buffer, scope, "cache_write")
    siblings = scope_blocks(func, outer)
    other = next((b for b in siblings if b is not realize and buffer in buffers_written(b)), None)
    if other is not None:
        refuse("cache_write", f"block {other.block.name} writes {buffer.name} too", at=other)
    if realize.block.init is None and buffer in buffers_read(realize):
        refuse("cache_write", f"block {block} reads what {buffer.name} held before it", at=realize)
    readers = [b for b in siblings if b is not realize and buffer in buffers_read(b)]
    direct: tuple[BlockRealize, ...] = ()
    if consumer_blocks:
        direct = _consumers(func, siblings, realize, buffer, consumer_blocks, "cache_write")
        early = next((c for c in direct if siblings.index(c) <= siblings.index(realize)), None)
        if early is not None:
            refuse("cache_write", f"block {early.block.name} does not read what {block} writes", at=early)
    place = place_after(outer, realize, readers, "cache_write", buffer)
    copied = region_at(func, outer, realize, place.anchor, buffer, "write")
    reason = why_not_written(func, realize, place.anchor, copied)
    if reason is not None:
        refuse(
            "cache_write",
            f"block {block} may not write all of {buffer.name} that would be copied: {reason}",
            at=realize,
        )
    cache = copy_of(func, buffer, scope)
    name = unique_name(func, cache.name)
    nest = _copy(name, cache, buffer, BufferRegion(cache, copied.region))
    rewritten: dict[Stmt, Stmt] = {c: _redirected(c, buffer, cache) for c in (realize, *direct)}
    return insert(func, outer, place, nest, before=False, rewritten=rewritten, allocated=(cache,)), name


def copy_of(func: PrimFunc, buffer: Buffer, scope: str) -> Buffer:
    """A compact temporary of the buffer's shape and dtype in ``scope``."""
    name = unique_name(func, f"{buffer.name}_{scope}")
    return Buffer(name, buffer.shape, buffer.dtype, scope=scope, align=buffer.align)


def _check_copied(func: PrimFunc, outer: BlockRealize, buffer: Buffer, scope: str, primitive: str) -> None:
    if scope not in SCOPES:
        refuse(primitive, f"there is no memory scope {scope!r}; there are {', '.join(SCOPES)}")
    refuse_taken_address(func, buffer, primitive)
    refuse_bare_access(outer, buffer, primitive)
    if buffer.strides and views_of(func, buffer):
        refuse(primitive, f"{buffer.name} has strides and blocks match views of it, whose strides would change")


def _consumers(
    func: PrimFunc,
    siblings: Sequence[BlockRealize],
    realize: BlockRealize,
    buffer: Buffer,
    names: Sequence[str] | None,
    primitive: str,
) -> tuple[BlockRealize, ...]:
    """The blocks named, or all that read the buffer and do not write it."""
    if not names:
        return tuple(b for b in siblings if buffer in buffers_read(b) and buffer not in buffers_written(b))
    chosen = [find_block(func, name, primitive) for name in names]
    for b in chosen:
        if b not in siblings:
            refuse(primitive, f"block {b.block.name} is not in the scope of {realize.block.name}", at=b)
        if buffer not in buffers_read(b):
            refuse(primitive, f"block {b.block.name} does not read {buffer.name}", at=b)
        if buffer in buffers_written(b):
            refuse(primitive, f"block {b.block.name} writes {buffer.name} too", at=b)
    if primitive == "cache_read" and realize not in chosen:
        chosen.append(realize)
    return tuple(b for b in siblings if b in chosen)


def _copy(name: str, source: Buffer, target: Buffer, region: BufferRegion) -> Stmt:
    return store_nest(name, source.shape, lambda v: BufferStore(target, BufferLoad(source, v), v), region=region.region)


def _redirected(realize: BlockRealize, old: Buffer, new: Buffer) -> BlockRealize:
    """The realization with every access and region of ``old`` inside its block made one of ``new``."""
    return replace(realize, block=substitute(realize.block, {old: new}))
