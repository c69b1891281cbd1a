"""Decisions: choices at random that a trace records, so that they can be made again, or otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from random import Random

from crossfarm.errors import ScheduleError
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.schedule.compute_at import compute_at
from crossfarm.ir.schedule.dependencies import consumers
from crossfarm.ir.schedule.references import Sampled
from crossfarm.ir.schedule.tree import find_block, find_loop, loops_above, refuse
from crossfarm.ir.stmt import For


def sample_perfect_tile(
    func: PrimFunc,
    loop: Var,
    n: int,
    max_innermost_factor: int = 16,
    *,
    decision: Sequence[int] | None,
    rng: Random,
) -> tuple[tuple[int, ...], tuple[Sampled, ...]]:
    """``n`` factors whose product is the loop's extent, each way to write it equally likely."""
    node = find_loop(func, loop, "sample_perfect_tile")
    extent = const_int(node.extent)
    if extent is None:
        refuse("sample_perfect_tile", f"loop {loop.name} has no constant extent", at=node)
    if n < 1 or max_innermost_factor < 1:
        refuse("sample_perfect_tile", f"{n} factors of at most {max_innermost_factor} are none")
    if decision is None:
        chosen = _tile(extent, n, max_innermost_factor, rng)
    else:
        chosen = tuple(decision)
        if len(chosen) != n or not all(isinstance(f, int) and f > 0 for f in chosen) or math.prod(chosen) != extent:
            refuse("sample_perfect_tile", f"{chosen} are not {n} factors of the extent {extent}", at=node)
        if n > 1 and chosen[-1] > max_innermost_factor:
            refuse("sample_perfect_tile", f"the innermost factor {chosen[-1]} is above {max_innermost_factor}", at=node)
    return chosen, tuple(Sampled(factor) for factor in chosen)


def sample_categorical(
    func: PrimFunc, candidates: Sequence[int], probs: Sequence[float], *, decision: int | None, rng: Random
) -> tuple[int, Sampled]:
    """One of ``candidates``; the decision is its index."""
    if not candidates or len(candidates) != len(probs):
        refuse("sample_categorical", f"{len(candidates)} candidates with {len(probs)} probabilities")
    if any(not p >= 0 for p in probs) or not 0 < sum(probs) < math.inf:
        refuse("sample_categorical", f"{tuple(probs)} are no probabilities")
    if decision is None:
        decision = _weighted(list(probs), rng)
    if not 0 <= decision < len(candidates):
        refuse("sample_categorical", f"there is no candidate {decision} among {len(candidates)}")
    return decision, Sampled(candidates[decision])


def sample_compute_location(func: PrimFunc, block: str, *, decision: int | None, rng: Random) -> tuple[int, Var]:
    """A loop at which ``block`` may be computed; the decision counts the loops around its first consumer from outside.

    The loops tried are those around all consumers; those that ``compute_at`` accepts are equally likely.
    """
    realize = find_block(func, block, "sample_compute_location")
    users = consumers(func, realize)
    if not users:
        refuse("sample_compute_location", f"nothing reads what block {block} writes", at=realize)
    around = [loops_above(func, user) for user in users]
    common: list[For] = [loop for loop in around[0] if all(loop in loops for loops in around[1:])]
    if decision is not None:
        if not 0 <= decision < len(common):
            refuse(
                "sample_compute_location", f"there is no loop {decision} around the consumers of {block}", at=realize
            )
        return decision, common[decision].var

    def accepted(loop: For) -> bool:
        try:
            compute_at(func, block, loop.var)
        except ScheduleError:
            return False
        return True

    places = [place for place, loop in enumerate(common) if accepted(loop)]
    if not places:
        refuse("sample_compute_location", f"block {block} can be computed at no loop of its consumers", at=realize)
    chosen = rng.choice(places)
    return chosen, common[chosen].var


def _tile(extent: int, n: int, most: int, rng: Random) -> tuple[int, ...]:
    """A way to write ``extent`` as ``n`` factors, the last at most ``most``, drawn uniformly."""
    if n == 1:
        return (extent,)
    divisors = _divisors(extent)
    last = [d for d in divisors if d <= most]
    factors = [last[_weighted([_ways(extent // d, n - 1) for d in last], rng)]]
    rest = extent // factors[0]
    for left in range(n - 2, 0, -1):
        options = _divisors(rest)
        factors.insert(0, options[_weighted([_ways(rest // d, left) for d in options], rng)])
        rest //= factors[0]
    return (rest, *factors)


@cache
def _divisors(number: int) -> tuple[int, ...]:
    low = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return tuple(low + [number // d for d in reversed(low) if d * d != number])


@cache
def _ways(number: int, n: int) -> int:
    """In how many ways ``number`` is a product of ``n`` factors in order."""
    return 1 if n <= 1 else sum(_ways(number // d, n - 1) for d in _divisors(number))


def _weighted(weights: Sequence[float], rng: Random) -> int:
    sums = list(accumulate(weights))
    drawn = rng.random() * sums[-1]
    return next(place for place, reached in enumerate(sums) if drawn < reached)
