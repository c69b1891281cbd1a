"""Finding blocks, their loops and their relatives."""

from __future__ import annotations

from crossfarm.ir.expr import Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.schedule.dependencies import consumers, output_blocks, producers, scope_blocks
from crossfarm.ir.schedule.tree import find_block, loops_above
from crossfarm.ir.stmt import BlockRealize

Names = tuple[str, ...]


def get_block(func: PrimFunc, name: str, in_function: str) -> tuple[PrimFunc, str]:
    """The block ``name``; ``in_function``, the function's own name, is for the trace."""
    return func, find_block(func, name, "get_block").block.name


def get_loops(func: PrimFunc, block: str) -> tuple[PrimFunc, tuple[Var, ...]]:
    """The loops around ``block`` inside its scope, outer to inner."""
    return func, tuple(loop.var for loop in loops_above(func, find_block(func, block, "get_loops")))


def get_child_blocks(func: PrimFunc, block: str) -> tuple[PrimFunc, Names]:
    """The blocks directly inside ``block``."""
    return func, _names(scope_blocks(func, find_block(func, block, "get_child_blocks")))


def get_producers(func: PrimFunc, block: str) -> tuple[PrimFunc, Names]:
    """The blocks whose results ``block`` reads."""
    return func, _names(producers(func, find_block(func, block, "get_producers")))


def get_consumers(func: PrimFunc, block: str) -> tuple[PrimFunc, Names]:
    """The blocks that read what ``block`` writes."""
    return func, _names(consumers(func, find_block(func, block, "get_consumers")))


def get_output_blocks(func: PrimFunc, scope: str) -> tuple[PrimFunc, Names]:
    """The blocks in ``scope`` whose results leave it."""
    return func, _names(output_blocks(func, find_block(func, scope, "get_output_blocks")))


def _names(blocks: tuple[BlockRealize, ...]) -> Names:
    return tuple(b.block.name for b in blocks)
