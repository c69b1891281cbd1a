"""The schedule's methods of the location family: compute_at, inlining and reductions."""

from __future__ import annotations

from crossfarm.ir.schedule import compute_at, inline, reduction
from crossfarm.ir.schedule.base import ScheduleBase
from crossfarm.ir.schedule.references import BlockRef, LoopRef


class LocationMethods(ScheduleBase):
    """Where a block's values are computed: under which loop, inside which other block, in which groups of steps."""

    def compute_at(
        self, block: BlockRef, loop: LoopRef | str, preserve_unit_loops: bool = False, index: int = -1
    ) -> None:
        """Moves a producer under ``loop``, where it computes just what the consumers read in one iteration.

        Its loops are made anew: one an axis, over the least box that holds what is needed, with a predicate where that
        overhangs the axis' domain. Buffers keep their shape; the compiler shrinks them. Under loops that are bound to
        ``threadIdx``, a block that fills ``shared`` memory computes what all threads of the group read.

        Args:
            loop: in the block's scope, with all its consumers inside. Or what ``sample_compute_location`` may give:
                ``"root"`` leaves the block where it is, ``"inline"`` inlines it.
            preserve_unit_loops: keep loops of one iteration.
            index: place among the statements of the loop's body; -1 the last legal one, -2 the first.

        Raises:
            ScheduleError: the block is neither complete nor a reduction, writes an output, has consumers elsewhere or
                none, or its elements are not known to have one value each; the message says which.
        """
        self._apply(compute_at.compute_at, block, loop, preserve_unit_loops, index)

    def reverse_compute_at(
        self, block: BlockRef, loop: LoopRef | str, preserve_unit_loops: bool = False, index: int = -1
    ) -> None:
        """Moves a consumer under ``loop``, where it runs for just what the producers make in one iteration.

        Args: as of ``compute_at``.

        Raises:
            ScheduleError: besides the reasons of ``compute_at``, an instance would read elements that are not final
                there, or would never run.
        """
        self._apply(compute_at.reverse_compute_at, block, loop, preserve_unit_loops, index)

    def compute_inline(self, block: BlockRef) -> None:
        """Puts the expression that ``block`` stores where its result is read; the block and its buffer are gone.

        Raises:
            ScheduleError: its body is not a single store, whose index says which instance it is; it writes an output
                or leaves elements out that are read; or a consumer cannot take an expression, as one with a view.
        """
        self._apply(inline.compute_inline, block)

    def reverse_compute_inline(self, block: BlockRef) -> None:
        """Puts what ``block`` does to each element of its producer's result into the producer.

        Raises:
            ScheduleError: it reads other than one element an instance, each once; or its producer has other readers,
                or is a reduction, whose elements are not final when they are stored.
        """
        self._apply(inline.reverse_compute_inline, block)

    def decompose_reduction(self, block: BlockRef, loop: LoopRef) -> BlockRef:
        """Makes the ``init`` of a reduction a block of its own, right before ``loop``; gives that block.

        A reduction over no element at all, as a symbolic size of 0 gives, left its elements as they were; now they get
        the start value.

        Raises:
            ScheduleError: it is no reduction, the loop is not around it, or a loop outside of it runs the reduction.
        """
        return self._apply(reduction.decompose_reduction, block, loop)

    def rfactor(self, loop: LoopRef, factor_axis: int) -> BlockRef:
        """Reduces each iteration of ``loop`` for itself, then reduces those results; gives the first of the two blocks.

        The partial results are a new buffer, with the loop's extent as an additional dimension at ``factor_axis``
        (negative counts from the end). Sums, products, minima, maxima, bitwise and logical reductions, argmax and
        argmin with ties broken by index. Float sums and products round differently than before; a reduction over no
        element at all leaves an unspecified value.

        Raises:
            ScheduleError: the loop does not run a reduction of one of these kinds, or is around other blocks too.
        """
        return self._apply(reduction.rfactor, loop, factor_axis)
