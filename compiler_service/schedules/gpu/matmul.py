"""Rule for matmul in all its layouts, batched or not, of floats and of integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.contraction import Contraction, contraction_of
from compiler_service.schedules.epilogue import epilogue_of
from compiler_service.schedules.gpu.products import Parts, TiledProduct, grid_problem, result_apart
from compiler_service.schedules.gpu.tiles import GroupTile, best_group_tile
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Var

#: Rows and columns below which a tile is not worth it.
_FEWEST = 4


@dataclass(frozen=True)
class Matmul:
    """Tiles of both factors in shared memory, of the result in registers.

    Args:
        tile: None for the best.
    """

    name: ClassVar[str] = "matmul"
    tile: GroupTile | None = None

    def match(self, site: Site) -> Fit | Refusal:
        found = contraction_of(site.func, site.block)
        if isinstance(found, str):
            return Refusal(found)
        if not found.rows or not found.columns or not found.sums:
            return Refusal("a factor has no axis of its own, or nothing is summed")
        parts = _parts(found)
        rows, columns = parts.size(parts.rows), parts.size(parts.columns)
        if any(size is not None and size < _FEWEST for size in (rows, columns)):
            return Refusal(f"{rows} rows by {columns} columns make no tile")
        tile = self._tile(site, found, parts)
        if isinstance(tile, str):
            return Refusal(tile)
        if problem := grid_problem(parts, tile):
            return Refusal(problem)
        taken = (site.block, *epilogue_of(site.func, site.block, site.open_blocks))
        along = f", with {', '.join(taken[1:])} on each result" if taken[1:] else ""
        return Fit(
            taken,
            f"a sum of products of {found.left.buffer.name} and {found.right.buffer.name}: {tile}{along}",
        )

    def apply(self, site: Site, fit: Fit) -> None:
        found = contraction_of(site.func, site.block)
        assert isinstance(found, Contraction)
        parts = _parts(found)
        tile = self._tile(site, found, parts)
        assert isinstance(tile, GroupTile)
        last = result_apart(site.schedule, site.function, site.block, fit.blocks[1:])
        TiledProduct(site, parts, tile, last).run()

    def _tile(self, site: Site, found: Contraction, parts: Parts) -> GroupTile | str:
        sizes = [parts.size(axes) for axes in (parts.rows, parts.columns, parts.sums, parts.batch)]
        left, right = (dt.itemsize(operand.buffer.dtype) for operand in (found.left, found.right))
        if self.tile is None:
            best = best_group_tile(site.gpu, sizes[0], sizes[1], sizes[2], sizes[3], left, right)
            return best or f"{site.gpu.shared_bytes} bytes of shared memory hold no tile"
        if self.tile.threads > site.gpu.threads or self.tile.shared_bytes(left, right) > site.gpu.shared_bytes:
            raise BuildFailed(
                f"rule {self.name!r}: a tile of {self.tile.threads} threads and {self.tile.shared_bytes(left, right)} "
                f"bytes is too large for {site.target.label}, which has {site.gpu.threads} and {site.gpu.shared_bytes}",
                hint="choose a smaller one, or none for the best",
            )
        return self.tile


def _parts(found: Contraction) -> Parts:
    """Axes of a part in the order of the result's dimensions, and of the right factor's for sums."""

    def in_order(axes: tuple[Var, ...], dimensions: tuple[Var, ...]) -> tuple[Var, ...]:
        return tuple(a for a in dimensions if a in axes)

    return Parts(
        block=found.block,
        left=found.left.read,
        right=found.right.read,
        batch=in_order(found.batch, found.out),
        rows=in_order(found.rows, found.out),
        columns=in_order(found.columns, found.out),
        sums=in_order(found.sums, found.right.axes),
        extents=found.extents,
    )
