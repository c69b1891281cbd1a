"""Recognizes what is computed of the rows of tensors: reductions along them and maps over them, in several blocks."""

from __future__ import annotations

from collections.abc import Sequence

from compiler_service.schedules.base import Site
from compiler_service.schedules.nests import Nest, nest_of, same_extent, temporaries
from crossfarm.ir.expr import Var


def row_group(site: Site, *, linked: bool = True) -> list[Nest] | str:
    """The blocks from the site's on that work on the same rows, at least one of them a reduction along a row.

    Args:
        linked: each but the first uses what one before it makes; else it is enough that the last one does in the end.
    """
    order = list(site.open_blocks)
    nests: list[Nest] = []
    for name in order[order.index(site.block) :]:
        nest = nest_of(site.func, name)
        if isinstance(nest, str):
            if not nests:
                return nest
            break
        nests.append(nest)
    first = next((n for n in nests if n.reduced), None)
    if first is None:
        return "neither it nor a block after it is a reduction"
    depth = len(first.spatial)
    if depth == 0:
        return "it reduces everything to one element"
    if not reduces_along_rows(first):
        return "what it reads last is not along its reduced axis"
    longest: list[Nest] = []
    for count in range(nests.index(first) + 1, len(nests) + 1):
        candidate = nests[:count]
        if not _fits_rows(candidate[-1], first, depth, candidate[:-1], linked):
            break
        if _is_closed(site, candidate):
            longest = candidate
    if not longest or not all(_fits_rows(n, first, depth, (), linked) for n in longest):
        return "its results are needed beside the rows"
    return longest


def first_reduction(group: Sequence[Nest]) -> Nest:
    return next(n for n in group if n.reduced)


def reduces_along_rows(nest: Nest) -> bool:
    """Whether the elements that follow one another are along the innermost reduced axis, in all that is read.

    A window that slides along the reduced axis is none: there results follow one another too.
    """
    last = nest.reduced[-1].var
    steps = [load.step(last) for load in nest.loads]
    sliding = any(
        load.step(last) == 1 and 1 <= abs(load.step(axis.var) or 0) < nest.instances((nest.reduced[-1],))
        for load in nest.loads
        for axis in nest.spatial
    )
    return 1 in steps and all(s in (0, 1) for s in steps) and not sliding


def _fits_rows(nest: Nest, first: Nest, depth: int, before: Sequence[Nest], linked: bool) -> bool:
    """Whether its first axes are the rows, and it exchanges only whole rows with the blocks before it."""
    axes = nest.block.iter_vars[:depth]
    if len(axes) < depth or any(a.kind != "spatial" for a in axes):
        return False
    if not all(same_extent(a.dom.extent, b.dom.extent) for a, b in zip(axes, first.spatial)):
        return False
    if nest.reduced and (len(nest.spatial) != depth or not reduces_along_rows(nest)):
        return False
    row = tuple(a.var for a in axes)
    made = {s.buffer for n in before for s in n.stores}
    shared = [a for a in nest.loads if a.buffer in made]
    if linked and before and not shared:
        return False
    return all(_is_row(a.indices, row) for a in (*nest.stores, *shared))


def _is_row(indices: Sequence[object], row: tuple[Var, ...]) -> bool:
    return len(indices) >= len(row) and all(i is v for i, v in zip(indices, row))


def _is_closed(site: Site, group: Sequence[Nest]) -> bool:
    """Whether what all but the last block store is needed nowhere else."""
    inside = {n.name for n in group}
    own = temporaries(site.func)
    for nest in group[:-1]:
        if any(s.buffer not in own for s in nest.stores):
            return False
        consumers = site.schedule.get_consumers(site.schedule.get_block(nest.name, site.function))
        if any(c.name not in inside for c in consumers):
            return False
    return True
