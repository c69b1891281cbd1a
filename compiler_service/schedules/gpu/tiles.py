"""How a matrix product is cut for a GPU: the tile of a group, and the part of it in each thread's registers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from compiler_service.schedules.machines import Gpu

#: Results that a thread keeps, along rows and columns, and steps of the sum that are shared at a time.
_ROWS, _COLUMNS, _STEPS = (1, 2, 4, 8), (1, 2, 4), (8, 16, 32)
#: The same for one thread on a core, whose row of results becomes vectors; more of them at once is more than registers.
_LOOP_ROWS, _LOOP_COLUMNS, _LOOP_STEPS = (1, 2, 4, 8), (4, 8, 16, 32), (8, 16, 32)
_LOOP_RESULTS = 128
#: Threads that are lanes of vectors, in a row.
_LANES = (8, 16, 32, 64)
#: What a load of shared memory, of global memory, and a step's barriers cost, in multiply-adds of one thread.
_SHARED_LOAD, _GLOBAL_LOAD, _BARRIER = 0.5, 8.0, 16.0
#: Threads that a multiprocessor needs to hide latencies behind, and results of a thread that do as well.
_THREADS_IN_FLIGHT, _RESULTS_IN_FLIGHT = 128, 8
#: Most multiply-adds that are written out for one thread: steps by results.
_WRITTEN_OUT = 512


@dataclass(frozen=True)
class GroupTile:
    """A group computes ``rows`` by ``columns`` results, ``steps`` of the sum at a time.

    Attributes:
        thread_rows, thread_columns: results of one thread.
        across, down: threads along columns and along rows.
        shared: whether the group loads tiles of the factors together; else each thread what it needs.
    """

    thread_rows: int
    thread_columns: int
    across: int
    down: int
    steps: int
    shared: bool = True

    @property
    def rows(self) -> int:
        return self.thread_rows * self.down

    @property
    def columns(self) -> int:
        return self.thread_columns * self.across

    @property
    def threads(self) -> int:
        return self.across * self.down

    def __str__(self) -> str:
        results = f"{self.thread_rows} by {self.thread_columns} results"
        if not self.shared:
            alone = f"{self.threads} threads of {results} each" if self.threads > 1 else f"a thread for {results}"
            return f"{alone}, {self.steps} steps at a time"
        loaded = f"tiles of {self.rows} by {self.steps} and {self.steps} by {self.columns}"
        return f"{self.threads} threads share {loaded}, each has {results}"

    def shared_bytes(self, left: int, right: int) -> int:
        """Of both factors' tiles, whose elements have so many bytes."""
        return 0 if not self.shared else self.steps * (self.rows * left + self.columns * right)


def best_group_tile(
    gpu: Gpu,
    rows: int | None,
    columns: int | None,
    sums: int | None,
    batch: int | None,
    left: int,
    right: int,
    *,
    whole_rows: bool = False,
) -> GroupTile | None:
    """The tile with the least estimated time; None where shared memory holds none.

    Args:
        rows, columns, sums, batch: of the product; None for any.
        left, right: bytes of an element of each factor.
        whole_rows: tiles divide the rows.
    """
    fitting = [
        t
        for t in _candidates(gpu)
        if t.shared_bytes(left, right) <= gpu.shared_bytes
        # one thread's part is never all of an axis that several threads share
        and (t.down == 1 or rows is None or t.thread_rows < rows)
        and (t.across == 1 or columns is None or t.thread_columns < columns)
        and not (whole_rows and (rows is None or rows % t.rows))
    ]
    return min(
        fitting,
        key=lambda t: (_cost(gpu, t, rows, columns, sums, batch), t.steps, -t.threads, t.thread_rows),
        default=None,
    )


def _candidates(gpu: Gpu) -> list[GroupTile]:
    if gpu.loops_over_threads:
        every = product(_LOOP_ROWS, _LOOP_COLUMNS, _LOOP_STEPS)
        return [GroupTile(r, c, 1, 1, s, False) for r, c, s in every if r * c <= _LOOP_RESULTS]
    if gpu.is_cpu:
        lanes = [x for x in _LANES if x <= gpu.threads]
        return [GroupTile(r, c, x, 1, 1, False) for r, c, x in product(_ROWS, _COLUMNS, lanes)]
    most = min(gpu.threads, 256)
    sizes = [1 << n for n in range(9)]
    tiles = [
        GroupTile(r, c, x, y, s)
        for r, c, s in product(_ROWS, _COLUMNS, _STEPS)
        for x, y in product(sizes, sizes)
        if min(8, most) <= x <= 64 and min(gpu.warp, most) <= x * y <= most
    ]
    # each thread loads as much as the others
    return [
        t
        for t in tiles
        if t.steps * min(t.rows, t.columns) % t.threads == 0
        and t.steps * t.thread_rows * t.thread_columns <= _WRITTEN_OUT
    ]


def _cost(
    gpu: Gpu, tile: GroupTile, rows: int | None, columns: int | None, sums: int | None, batch: int | None
) -> float:
    """Of one product, in multiply-adds: with its share of loads and waits, and of threads that have nothing to do."""
    groups_down = _tiles(rows or 1024, tile.rows)
    groups_across = _tiles(columns or 1024, tile.columns)
    groups = groups_down * groups_across * (batch or 1)
    padded = groups * tile.rows * tile.columns * _tiles(sums or 1024, tile.steps) * tile.steps
    each = tile.thread_rows * tile.thread_columns
    loads = _SHARED_LOAD * (1 / tile.thread_rows + 1 / tile.thread_columns)
    loads += _GLOBAL_LOAD * (1 / tile.rows + 1 / tile.columns)
    waits = _BARRIER / (each * tile.steps)
    under_way = min(each, _RESULTS_IN_FLIGHT) / _RESULTS_IN_FLIGHT
    in_flight = 1 if gpu.loops_over_threads else _THREADS_IN_FLIGHT
    busy = min(1.0, groups * tile.threads * under_way / (gpu.units * in_flight))
    return padded * (1 + loads + waits) / busy


def _tiles(extent: int, size: int) -> int:
    return -(-extent // size)
