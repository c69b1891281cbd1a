"""The blocks that pad a convolution's data."""

from __future__ import annotations

from compiler_service.schedules.base import Site
from compiler_service.schedules.nests import temporaries
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.schedule.dependencies import consumers, is_complete_block, producers
from crossfarm.ir.schedule.tree import find_block
from crossfarm.ir.stmt import BufferStore


def padding_before(site: Site, data: Buffer) -> tuple[str, ...]:
    """The name of the open block that makes ``data`` for the site's block, element by element; () for none."""
    func = site.func
    for before in producers(func, find_block(func, site.block)):
        made = before.block.writes[0].buffer if len(before.block.writes) == 1 else None
        single = isinstance(before.block.body, BufferStore) and is_complete_block(func, before)
        if made is data and single and before.block.name in site.open_blocks:
            return (before.block.name,)
    return ()


def private_padding(site: Site, data: Buffer) -> tuple[str, ...]:
    """The name of the open block that makes ``data`` for the site's block alone, element by element; () for none."""
    func = site.func
    return tuple(
        name
        for name in padding_before(site, data)
        if consumers(func, find_block(func, name)) == (find_block(func, site.block),) and data in temporaries(func)
    )
