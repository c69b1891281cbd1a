"""One random application of a random primitive: what a person might try, sensible or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from crossfarm.ir.buffer import SCOPES
from crossfarm.ir.schedule import intrinsics
from crossfarm.ir.schedule.schedule import BlockRef, LoopRef, Schedule
from crossfarm.ir.schedule.tree import statements
from crossfarm.ir.stmt import Block, BlockRealize, For


class Steps:
    """Draws steps on one function of a schedule.

    Args:
        data: hypothesis' source of choices, so that failures shrink.
        without: primitives to leave out.
    """

    def __init__(self, data: st.DataObject, sch: Schedule, func: str, without: Sequence[str] = ()) -> None:
        self._data = data
        self._sch = sch
        self._func = func
        self._choices = [primitive for primitive in PRIMITIVES if primitive not in without]

    def apply_one(self) -> None:
        """Applies one step to the schedule. Raises ScheduleError where the primitive refuses it."""
        PRIMITIVES[self.pick(self._choices)](self)

    def pick(self, options: Sequence[Any]) -> Any:
        return self._data.draw(st.sampled_from(list(options)))

    def block(self) -> BlockRef:
        root, *names = [s.block.name for s in statements(self._body()) if isinstance(s, BlockRealize)]
        return self._sch.get_block(self.pick(names or [root]), self._func)

    def loops(self) -> tuple[LoopRef, ...]:
        """The loops around some block; some primitive may have taken the last of them."""
        return self._sch.get_loops(self.block())

    def loop(self) -> LoopRef:
        loops = self.loops()
        if loops:
            return self.pick(loops)
        added = self._sch.add_unit_loop(self.block())
        assert isinstance(added, LoopRef)
        return added

    def node(self, ref: BlockRef | LoopRef) -> Block | For:
        return self._sch.get(ref)

    def buffer_index(self, block: BlockRef, side: str | None = None) -> int:
        found = self.node(block)
        assert isinstance(found, Block)
        count = {"read": len(found.reads), "write": len(found.writes), None: len(found.alloc_buffers)}[side]
        return self.pick(range(max(count, 1)))

    def rank(self, block: BlockRef, side: str, index: int) -> int:
        found = self.node(block)
        assert isinstance(found, Block)
        regions = found.reads if side == "read" else found.writes
        return len(regions[index].region) if index < len(regions) else 1

    def axes(self, block: BlockRef) -> int:
        found = self.node(block)
        assert isinstance(found, Block)
        return len(found.iter_vars)

    def _body(self) -> Any:
        return self._sch.module[self._func].body

    # --- the primitives, each with arguments drawn

    def split(self) -> None:
        factors = self.pick(
            [(None, 2), (None, 3), (None, 4), (2, None), (None, 2, 2), (3, None, 2), (2, 3), (None, 16)]
        )
        self._sch.split(self.loop(), factors)

    def fuse(self) -> None:
        loops = self.loops()
        first = self.pick(range(max(len(loops), 1)))
        self._sch.fuse(*loops[first : first + self.pick([2, 3])])

    def reorder(self) -> None:
        loops = self._data.draw(st.permutations(list(self.loops())))
        self._sch.reorder(*loops[: self.pick([2, 3, 8])])

    def mark(self) -> None:
        loop = self.loop()
        self.pick([self._sch.parallel, self._sch.vectorize, self._sch.unroll])(loop)

    def bind(self) -> None:
        self._sch.bind(self.loop(), self.pick(["threadIdx.x", "blockIdx.x", "threadIdx.y"]))

    def annotate(self) -> None:
        self._sch.annotate(self.pick([self.block, self.loop])(), "note", self.pick([1, "text", True]))

    def add_unit_loop(self) -> None:
        self._sch.add_unit_loop(self.pick([self.block, self.loop])())

    def cache_read(self) -> None:
        block = self.block()
        self._sch.cache_read(block, self.buffer_index(block, "read"), self.pick(SCOPES))

    def cache_write(self) -> None:
        block = self.block()
        self._sch.cache_write(block, self.buffer_index(block, "write"), self.pick(SCOPES))

    def reindex(self) -> None:
        block, side = self.block(), self.pick(["read", "write"])
        self._sch.reindex(block, (side, self.buffer_index(block, side)))

    def transform_layout(self) -> None:
        block, side = self.block(), self.pick(["read", "write"])
        index = self.buffer_index(block, side)
        order = self._data.draw(st.permutations(range(self.rank(block, side, index))))
        tile = self.pick([None, 2, 3, 4])

        def layout(*point: Any) -> list[Any]:
            moved = [point[axis] for axis in order]
            return moved if tile is None or not moved else [*moved[:-1], moved[-1] // tile, moved[-1] % tile]

        self._sch.transform_layout(block, (side, index), layout, self.pick([None, 0]))

    def transform_block_layout(self) -> None:
        block = self.block()
        order = self._data.draw(st.permutations(range(self.axes(block))))
        self._sch.transform_block_layout(block, lambda *point: [point[axis] for axis in order])

    def pad_einsum(self) -> None:
        block = self.block()
        self._sch.pad_einsum(block, [self.pick([1, 2, 4]) for _ in range(self.axes(block))])

    def compute_at(self) -> None:
        self._sch.compute_at(self.block(), self.loop(), self.pick([False, True]))

    def reverse_compute_at(self) -> None:
        self._sch.reverse_compute_at(self.block(), self.loop(), self.pick([False, True]))

    def compute_inline(self) -> None:
        self._sch.compute_inline(self.block())

    def reverse_compute_inline(self) -> None:
        self._sch.reverse_compute_inline(self.block())

    def decompose_reduction(self) -> None:
        block = self.block()
        loops = self._sch.get_loops(block)
        self._sch.decompose_reduction(block, self.pick(loops) if loops else self.loop())

    def rfactor(self) -> None:
        self._sch.rfactor(self.loop(), self.pick([0, 1, -1]))

    def blockize(self) -> None:
        self._sch.blockize(self.loop(), self.pick([True, False]))

    def tensorize(self) -> None:
        self._sch.tensorize(self.pick([self.block, self.loop])(), self.pick(intrinsics.names()))

    def set_scope(self) -> None:
        block = self.block()
        self._sch.set_scope(block, self.buffer_index(block, "write"), self.pick(SCOPES))

    def storage_align(self) -> None:
        block = self.block()
        index = self.buffer_index(block, "write")
        axis = self.pick(range(self.rank(block, "write", index)))
        self._sch.storage_align(block, index, axis, self.pick([8, 32]), self.pick([0, 4]))

    def sample_tile(self) -> None:
        loop = self.loop()
        self._sch.split(loop, self._sch.sample_perfect_tile(loop, self.pick([2, 3])))

    def sample_unroll(self) -> None:
        steps = self._sch.sample_categorical([0, 16, 64], [0.5, 0.25, 0.25])
        self._sch.annotate(self.block(), "unroll", steps)

    def sample_location(self) -> None:
        block = self.block()
        self._sch.compute_at(block, self._sch.sample_compute_location(block))


PRIMITIVES: dict[str, Callable[[Steps], None]] = {
    name: step
    for name, step in vars(Steps).items()
    if not name.startswith("_")
    and name not in ("apply_one", "pick", "block", "loops", "loop", "node", "buffer_index", "rank", "axes")
}
