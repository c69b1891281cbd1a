"""What follows a block element by element: a bias, an activation, a conversion, to be computed while a tile is hot."""

from __future__ import annotations

from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.schedule.dependencies import consumers, producers, scope_blocks
from crossfarm.ir.schedule.references import BlockRef
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.schedule.tree import find_block, parent_block
from crossfarm.ir.stmt import BlockRealize, BufferStore
from crossfarm.ir.visitor import walk


def epilogue_of(func: PrimFunc, block: str, open_blocks: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the blocks that, one after the other, map the result of ``block`` elementwise.

    Each reads its producer's result at its own indices only, and nothing else reads that result; a chain ends where
    that does not hold.
    """
    chain: list[str] = []
    realize = find_block(func, block)
    while True:
        after = consumers(func, realize)
        if len(after) != 1 or after[0].block.name not in open_blocks:
            return tuple(chain)
        (following,) = after
        buffer = realize.block.writes[0].buffer
        if not _is_temporary(func, realize, buffer) or not _maps(realize, following, buffer):
            return tuple(chain)
        between = _blocks_between(func, realize, following)
        if any(before in between for before in producers(func, following)):
            return tuple(chain)  # something else that it needs is computed in between
        chain.append(following.block.name)
        realize = following


def fused_epilogue(schedule: Schedule, function: str, names: tuple[str, ...]) -> BlockRef | None:
    """The blocks of ``epilogue_of`` as one, in which the others are inlined; None where there are none."""
    blocks = [schedule.get_block(name, func=function) for name in names]
    for block in blocks[:-1]:
        schedule.compute_inline(block)
    return blocks[-1] if blocks else None


def _is_temporary(func: PrimFunc, realize: BlockRealize, buffer: Buffer) -> bool:
    return buffer in parent_block(func, realize).block.alloc_buffers


def _maps(before: BlockRealize, following: BlockRealize, buffer: Buffer) -> bool:
    block = following.block
    if block.init is not None or not isinstance(block.body, BufferStore) or len(before.block.writes) != 1:
        return False
    if any(axis.kind != "spatial" for axis in block.iter_vars):
        return False
    axes = [axis.var for axis in block.iter_vars]
    loads = [n for n in walk(block.body.value) if isinstance(n, BufferLoad) and n.buffer is buffer]
    stored = tuple(block.body.indices)
    every = [*(load.indices for load in loads), stored]
    return all(len(i) == len(axes) and all(isinstance(e, Var) and e in axes for e in i) for i in every) and all(
        all(a is b for a, b in zip(load.indices, stored)) for load in loads
    )


def _blocks_between(func: PrimFunc, first: BlockRealize, last: BlockRealize) -> tuple[BlockRealize, ...]:
    siblings = scope_blocks(func, parent_block(func, first))
    return siblings[siblings.index(first) + 1 : siblings.index(last)]
