"""Register tiles: how many accumulators a kernel keeps, in rows by vectors."""

from __future__ import annotations

from dataclasses import dataclass

from compiler_service.schedules.machines import Cpu

#: Instructions that a core starts in a cycle, of which products that are added, and loads: what nearly all cores that
#: have vectors reach, the larger ones more.
_ISSUED, _MULTIPLIED, _LOADED = 6, 2, 2
#: Cycles until a product that is added can be added to: so many times ``_MULTIPLIED`` sums must be under way.
_LATENCY = 4
_MOST_ROWS, _MOST_VECTORS = 16, 4


@dataclass(frozen=True)
class Tile:
    """``rows`` by ``vectors * lanes`` accumulators."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes

    @property
    def registers(self) -> int:
        """Accumulators, a row of the right factor, and one element of the left one in every lane."""
        return self.rows * self.vectors + self.vectors + 1

    def cycles(self) -> float:
        """Of one step of the sum, by the busiest part of a core."""
        products = self.rows * self.vectors
        loads = self.rows + self.vectors
        sums_under_way = max(products, _LATENCY * _MULTIPLIED)
        return max(sums_under_way / _MULTIPLIED, loads / _LOADED, (products + loads + 3) / _ISSUED)


def best_tile(cpu: Cpu, dtype: str, rows: int | None, columns: int | None) -> Tile:
    """The tile whose kernel takes the fewest cycles for a result of that size, what it pads included.

    Args:
        rows, columns: of the result; None for any.
    """
    lanes = cpu.lanes(dtype)
    candidates = [
        Tile(r, v, lanes)
        for v in range(1, _MOST_VECTORS + 1)
        for r in range(1, _MOST_ROWS + 1)
        if Tile(r, v, lanes).registers <= cpu.vector_registers
    ]

    def cost(tile: Tile) -> tuple[float, int]:
        work = tile.cycles()
        work *= _tiles(rows, tile.rows) * _tiles(columns, tile.columns)
        return work, -tile.rows * tile.vectors

    return min(candidates, key=cost)


def _tiles(extent: int | None, size: int) -> float:
    """How many tiles an extent needs; of an unknown one, how many per element."""
    return 1 / size if extent is None else float(-(-extent // size))
