"""What a convolution's kernel works on at a time: filters by pixels in registers, rows of pixels in the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from compiler_service.schedules.machines import Cpu
from crossfarm.ir import dtype as dt

#: Of a core with vectors: products added and vectors loaded in a cycle, and cycles until a sum can be added to.
_MULTIPLIED, _LOADED, _LATENCY = 2, 2, 4
#: Cycles to bring a vector from the second level cache, and from beyond it; to copy one into a panel; to wait for all
#: threads.
_FROM_L2, _FROM_L3, _COPIED, _BARRIER = 1.1, 3.0, 2.0, 15_000
#: Accumulators beyond what registers hold. One costs nothing: it is stored and loaded while others are added to.
_SPILLED = 1
_USUAL_THREADS = 8
_MOST_PADDING = 1.5


@dataclass(frozen=True)
class Sizes:
    """A convolution in numbers.

    Attributes:
        images: how many times all of it is done: batch and groups; None where that is symbolic.
        filters: that see the same data; height, width: of the result.
        channels: of the data; window: elements of the window.
    """

    images: int | None
    filters: int
    height: int
    width: int
    channels: int
    window: int


@dataclass(frozen=True)
class ConvTile:
    """A choice.

    Attributes:
        image_rows: rows of the result whose pixels make one panel.
        filters, vectors: accumulators in registers: filters by vectors of pixels, ``lanes`` each.
        chunk: groups of filters that a thread takes at a time once all panels are there; 0 where a thread makes a
            panel for itself and takes all filters.
        channels: that are summed while their part of the panel is in the cache; all of them, or a divisor.
    """

    image_rows: int
    filters: int
    vectors: int
    lanes: int
    chunk: int
    channels: int

    def panel(self, sizes: Sizes) -> int:
        """Pixels of a panel, with those that fill its last vectors."""
        tile = self.vectors * self.lanes
        return -(-self.image_rows * sizes.width // tile) * tile

    def cycles(self, cpu: Cpu, dtype: str, sizes: Sizes) -> float:
        """An estimate for the whole convolution, by the busiest thread."""
        threads = cpu.threads or _USUAL_THREADS
        depth, panel = sizes.channels * sizes.window, self.panel(sizes)
        panels = (sizes.images or 4 * threads) * sizes.height // self.image_rows
        products = self.filters * self.vectors
        in_l1 = self.channels * sizes.window * panel * dt.itemsize(dtype) <= cpu.l1_bytes // 2
        loads = self.filters / _LOADED + self.vectors * (1 / _LOADED if in_l1 else _FROM_L2)
        step = max(products / _MULTIPLIED, loads, _LATENCY)
        passes = panel // (self.vectors * self.lanes) * -(-sizes.filters // self.filters)
        filling = depth * panel / self.lanes * _COPIED
        blocks = sizes.channels // self.channels
        storing = passes * products * 2 * (blocks - 1)
        if not self.chunk:
            return math.ceil(panels / threads) * (passes * depth * step + storing + filling)
        chunks = math.ceil(-(-sizes.filters // self.filters) / self.chunk)
        bringing = chunks * depth * panel / self.lanes * _FROM_L3  # each chunk's thread reads what all have filled
        busiest = math.ceil(panels * chunks / threads) / (panels * chunks)
        work = passes * depth * step + storing + bringing
        return panels * (work * busiest + 2 * filling / threads) + _BARRIER


def best_tile(cpu: Cpu, dtype: str, data_dtype: str, sizes: Sizes) -> ConvTile | None:
    """The tile with the least estimate; None where no panel fits: rows are wide, and channels many.

    Args:
        dtype: of the sums; data_dtype: of the data.
    """
    candidates = list(_candidates(cpu, dtype, data_dtype, sizes))
    return min(candidates, key=lambda tile: (tile.cycles(cpu, data_dtype, sizes), -tile.filters), default=None)


def _candidates(cpu: Cpu, dtype: str, data_dtype: str, sizes: Sizes) -> Iterator[ConvTile]:
    lanes, threads = cpu.lanes(dtype), cpu.threads or _USUAL_THREADS
    for filters, vectors in _register_tiles(cpu):
        if filters > max(sizes.filters, 1) or (sizes.filters % filters and sizes.filters >= 4):
            continue
        narrowest = -(-sizes.width // (vectors * lanes)) * vectors * lanes
        for image_rows in divisors(sizes.height):
            tile = ConvTile(image_rows, filters, vectors, lanes, 0, sizes.channels)
            panel = tile.panel(sizes)
            if panel > max(_MOST_PADDING * image_rows * sizes.width, narrowest) or panel > max(512, narrowest):
                continue
            per_channel = sizes.window * panel * dt.itemsize(data_dtype)
            channels = sizes.channels
            if channels * per_channel > cpu.l2_bytes * 5 // 8:
                if panel > vectors * lanes:
                    continue  # sums of several register tiles would go to memory at each block
                fitting = max(cpu.l2_bytes * 3 // 8 // per_channel, 1)
                channels = max(d for d in divisors(sizes.channels) if d <= fitting)
            groups = -(-sizes.filters // filters)
            yield ConvTile(image_rows, filters, vectors, lanes, 0, channels)
            if sizes.images == 1:
                for chunk in divisors(groups):
                    if chunk <= max(groups // threads, 1) and chunk <= 32:
                        yield ConvTile(image_rows, filters, vectors, lanes, chunk, channels)


def _register_tiles(cpu: Cpu) -> Iterator[tuple[int, int]]:
    """Filters by vectors that the registers hold, with one side's operands and one vector of the other's."""
    registers = cpu.vector_registers + _SPILLED
    for filters in range(1, 9):
        for vectors in range(1, 17):
            if filters * vectors + min(filters, vectors) + 1 <= registers:
                yield filters, vectors


def divisors(number: int) -> list[int]:
    """In ascending order."""
    return [d for d in range(1, number + 1) if number % d == 0]
