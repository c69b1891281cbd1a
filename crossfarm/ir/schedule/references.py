"""What a schedule hands out: names of blocks, identities of loops, sampled numbers, and their names in traces."""

from __future__ import annotations

from dataclasses import dataclass

from crossfarm.ir.expr import Var


@dataclass(frozen=True)
class BlockRef:
    """A block of function ``func``, by name: names are unique in a function once a Schedule has opened it."""

    func: str
    name: str

    def __str__(self) -> str:
        return f"{self.func}.{self.name}"


@dataclass(frozen=True)
class LoopRef:
    """A loop of function ``func``, by the identity of its variable; valid until a primitive replaces that loop."""

    func: str
    var: Var

    def __str__(self) -> str:
        return f"{self.func}.{self.var.name}"


@dataclass(frozen=True)
class Output:
    """Stands in a trace for what an earlier instruction gave: ``b0`` a block, ``l1`` a loop, ``v2`` a number."""

    name: str


class Sampled(int):
    """A number that a ``sample_`` primitive chose: an int in every way.

    Passed on as it is, the trace knows where it came from, so that replaying with another decision passes on the new
    number. Arithmetic on it gives plain ints, which replay as constants.
    """
