"""Traces: the instructions that made a schedule; they replay on the original module, also with other decisions.

::

    trace = sch.trace
    again = Schedule(module)
    trace.apply_to(again)                                   # the same module as sch.module
    trace.with_decision(4, (8, 2, 4)).apply_to(Schedule(module))
    print(trace.as_python())
    Trace.from_json(trace.to_json()) == trace
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crossfarm.errors import Error, TraceError

if TYPE_CHECKING:
    from crossfarm.ir.schedule.base import ScheduleBase


@dataclass(frozen=True)
class Output:
    """Stands in an instruction's arguments for what an earlier instruction gave: ``b0`` a block, ``l1`` a loop, ``v2``
    a number."""

    name: str


@dataclass(frozen=True)
class Instruction:
    """One application of a primitive.

    Attributes:
        primitive: name of the Schedule method.
        args: its positional arguments; references and sampled numbers are ``Output``, sequences are tuples.
        options: its keyword arguments.
        outputs: name of what it gave, or a tuple of names where the method gives several; () for nothing.
        decision: what a ``sample_`` primitive chose, else None.
    """

    primitive: str
    args: tuple[Any, ...]
    options: Mapping[str, Any]
    outputs: str | tuple[str, ...] = ()
    decision: Any = None

    def as_python(self) -> str:
        """The call, as ``l3, l4 = sch.split(l1, (None, 8))``."""
        from crossfarm.ir.schedule.trace_json import python_text  # it stands on this module

        return python_text(self)


@dataclass(frozen=True, eq=False)
class Trace:
    """Instructions in order of application. Two traces are equal when they are written alike (``to_json``)."""

    instructions: tuple[Instruction, ...] = ()

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions)

    def __len__(self) -> int:
        return len(self.instructions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(tuple(i.primitive for i in self.instructions))

    def decisions(self) -> dict[int, Any]:
        """What each ``sample_`` instruction chose, by its index."""
        return {n: i.decision for n, i in enumerate(self.instructions) if i.decision is not None}

    def with_decision(self, index: int, decision: Any) -> Trace:
        """The trace with another choice of instruction ``index``. Raises TraceError where that makes none."""
        if not 0 <= index < len(self) or self.instructions[index].decision is None:
            known = ", ".join(map(str, self.decisions())) or "none"
            raise TraceError(f"instruction {index} makes no decision; those that do: {known}")
        changed = replace(self.instructions[index], decision=decision)
        return replace(self, instructions=(*self.instructions[:index], changed, *self.instructions[index + 1 :]))

    def apply_to(self, schedule: ScheduleBase) -> None:
        """Applies every instruction to ``schedule``, with the recorded decisions.

        Raises:
            TraceError: an instruction does not fit the module (any more), or this version knows no such primitive; the
                message names it. What was applied before it stays.
        """
        values: dict[str, Any] = {}
        for position, instruction in enumerate(self.instructions):
            try:
                _apply(schedule, instruction, values)
            except Error as refused:
                raise TraceError(
                    f"instruction {position} of the trace, {instruction.as_python()}, does not fit this module: "
                    f"{refused.message}",
                    primitive=instruction.primitive,
                    reason=refused.message,
                    hint=refused.hint or "replay a trace on the module it was made from",
                ) from refused

    def as_python(self, name: str = "sch") -> str:
        """The trace as Python statements over a Schedule called ``name``, which decide as recorded."""
        from crossfarm.ir.schedule.trace_json import python_text  # it stands on this module

        return "".join(f"{python_text(i, name)}\n" for i in self.instructions)

    def to_json(self) -> str:
        """The trace as JSON text with its version, deterministic. Raises TraceError for an argument without a form."""
        from crossfarm.ir.schedule.trace_json import write  # it stands on this module

        return write(self)

    @staticmethod
    def from_json(text: str) -> Trace:
        """Reads what ``to_json`` wrote, in any version since 1.

        Raises:
            TraceError: not JSON, not a trace, or from the future; nothing of it is executed.
        """
        from crossfarm.ir.schedule.trace_json import read  # it stands on this module

        return read(text)


def _apply(schedule: ScheduleBase, instruction: Instruction, values: dict[str, Any]) -> None:
    method = schedule.primitives().get(instruction.primitive)
    if method is None:
        raise TraceError(f"there is no primitive {instruction.primitive!r}", hint="read it with a newer version")
    args = [_resolved(arg, values) for arg in instruction.args]
    options = {name: _resolved(value, values) for name, value in instruction.options.items()}
    if instruction.decision is not None:
        options["decision"] = instruction.decision
    try:
        result = method(*args, **options)
    except (TypeError, ValueError) as unfit:  # a trace from a file may call a primitive with anything
        raise TraceError(f"its arguments do not fit: {unfit}") from unfit
    if isinstance(instruction.outputs, str):
        values[instruction.outputs] = result
        return
    given: Sequence[Any] = () if result is None else result
    if not isinstance(given, tuple) or len(given) != len(instruction.outputs):
        raise TraceError(f"it gives {len(given) if isinstance(given, tuple) else 1} results here")
    values.update(zip(instruction.outputs, given))


def _resolved(arg: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(arg, Output):
        if arg.name not in values:
            raise TraceError(f"{arg.name} is not the result of an instruction before it")
        return values[arg.name]
    return tuple(_resolved(item, values) for item in arg) if isinstance(arg, tuple) else arg
