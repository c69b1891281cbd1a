"""The schedule's methods that choose at random: their decisions are recorded, and may be given."""

from __future__ import annotations

from collections.abc import Sequence

from crossfarm.ir.schedule import sample
from crossfarm.ir.schedule.base import ScheduleBase
from crossfarm.ir.schedule.references import BlockRef, LoopRef, Sampled


class SampleMethods(ScheduleBase):
    """Choices that a trace can make again, or otherwise.

    What they give is to be passed to other primitives as it is: arithmetic on a sampled number gives a plain one, which
    replays as a constant.
    """

    def sample_perfect_tile(
        self, loop: LoopRef, n: int, max_innermost_factor: int = 16, decision: Sequence[int] | None = None
    ) -> tuple[Sampled, ...]:
        """``n`` factors whose product is the loop's constant extent, for ``split``.

        Args:
            max_innermost_factor: the last factor is at most this.
            decision: the factors to choose; at random where it is left out.

        Raises:
            ScheduleError: the extent is not constant, or the decision does not fit it.
        """
        return self._sample(sample.sample_perfect_tile, loop, n, max_innermost_factor, decision=decision)

    def sample_categorical(
        self, candidates: Sequence[int], probs: Sequence[float], decision: int | None = None
    ) -> Sampled:
        """One of ``candidates``, with the given probabilities (of any sum); ``decision`` is its index."""
        return self._sample(
            sample.sample_categorical, candidates, probs, decision=decision, func=next(iter(self.module.functions))
        )

    def sample_compute_location(self, block: BlockRef, decision: int | None = None) -> LoopRef:
        """A loop at which ``compute_at`` accepts to compute ``block``.

        Args:
            decision: which of the loops around all its consumers, counted from outside.

        Raises:
            ScheduleError: there is no such loop.
        """
        return self._sample(sample.sample_compute_location, block, decision=decision)
