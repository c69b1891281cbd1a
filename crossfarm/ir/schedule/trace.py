"""Traces: the instructions that made a schedule, and how they are replayed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Output:
    """Stands in an instruction's arguments for what an earlier instruction gave: its number in the trace."""

    number: int


@dataclass(frozen=True)
class Instruction:
    """One application of a primitive.

    Attributes:
        primitive: name of the Schedule method.
        args: its arguments in order; references and sampled numbers are ``Output``, anything else is plain data.
        outputs: numbers of what it gave, () for nothing.
        decision: what a ``sample_`` primitive chose, else None.
    """

    primitive: str
    args: tuple[Any, ...]
    outputs: tuple[int, ...] = ()
    decision: Any = None


@dataclass
class Trace:
    """Instructions in order of application."""

    instructions: list[Instruction] = field(default_factory=list)

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions)

    def __len__(self) -> int:
        return len(self.instructions)
