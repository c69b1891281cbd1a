"""Traces: the instructions that made a schedule; they replay on the original module, also with other decisions.

::

    trace = sch.trace
    again = Schedule(module)
    trace.apply_to(again)                                   # the same module as sch.module
    trace.with_decision(4, (8, 2, 4)).apply_to(Schedule(module))
    print(trace.as_python())
    Trace.from_json(trace.to_json()) == trace

As JSON::

    {"trace_version": 1, "instructions": [
      {"primitive": "get_block", "args": ["C", "main"], "outputs": "C"},
      {"primitive": "get_loops", "args": [{"ref": "C"}], "outputs": ["i", "j", "k"]},
      {"primitive": "split", "args": [{"ref": "i"}, [null, {"ref": "choice"}]], "outputs": ["i_0", "i_1"]}, …]}

Results are named after the blocks and loops they are; arguments that have their default value are left out, so the
defaults of primitives are part of the format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

from crossfarm.compat.versions import TRACE_VERSION
from crossfarm.errors import Error, InvalidModule, TraceError
from crossfarm.ir.schedule.references import Output
from crossfarm.ir.schedule.trace_values import python_value, read_value, write_value

#: A longer trace is refused: it comes from outside.
MAX_INSTRUCTIONS = 100_000


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
        """The call, as ``i_0, i_1 = sch.split(i, (None, 8))``."""
        return self._python("sch")

    def _python(self, schedule: str) -> str:
        given = [python_value(a) for a in self.args]
        given += [f"{name}={python_value(value)}" for name, value in self.options.items()]
        if self.decision is not None:
            given.append(f"decision={python_value(self.decision)}")
        call = f"{schedule}.{self.primitive}({', '.join(given)})"
        if not self.outputs:
            return call
        outputs = self.outputs
        names = outputs if isinstance(outputs, str) else ", ".join(outputs) + ("," if len(outputs) == 1 else "")
        return f"{names} = {call}"


class Replayed(Protocol):
    """What a trace is applied to: a ``Schedule``."""

    def primitives(self) -> Mapping[str, Callable[..., Any]]:
        """The methods that a trace may call, by name."""
        ...


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

    def apply_to(self, schedule: Replayed) -> None:
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
        """The trace as Python statements, which on a Schedule of the original module give the same one, with the same
        decisions.

        Args:
            name: of the variable that holds the Schedule.

        Raises:
            TraceError: a result has that name.
        """
        if any(name in ((i.outputs,) if isinstance(i.outputs, str) else i.outputs) for i in self.instructions):
            raise TraceError(f"{name} is the name of a result in this trace", hint="give the schedule another name")
        calls = "".join(f"{i._python(name)}\n" for i in self.instructions)
        return f"from crossfarm import te\n\n{calls}" if "te." in calls else calls

    def to_json(self) -> str:
        """The trace as JSON text with its version, deterministic. Raises TraceError for an argument without a form."""
        return json.dumps({"trace_version": TRACE_VERSION, "instructions": [_entry(i) for i in self.instructions]})

    @staticmethod
    def from_json(text: str) -> Trace:
        """Reads what ``to_json`` wrote, in any version since 1.

        Raises:
            TraceError: not JSON, not a trace, or from the future; nothing of it is executed.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as problem:
            raise TraceError(f"a trace that is not JSON: {problem}") from None
        if not isinstance(data, dict) or not isinstance(data.get("trace_version"), int):
            raise TraceError("not a trace: there is no trace_version")
        version = data["trace_version"]
        if not 1 <= version <= TRACE_VERSION:
            raise TraceError(
                f"a trace of version {version}; this program reads 1 to {TRACE_VERSION}",
                hint="upgrade crossfarm to read it",
            )
        entries = data.get("instructions")
        if not isinstance(entries, list) or len(entries) > MAX_INSTRUCTIONS:
            raise TraceError(f"a trace has a list of at most {MAX_INSTRUCTIONS} instructions")
        return Trace(tuple(_instruction(position, entry) for position, entry in enumerate(entries)))


def _apply(schedule: Replayed, instruction: Instruction, values: dict[str, Any]) -> None:
    method = schedule.primitives().get(instruction.primitive)
    if method is None:
        raise TraceError(f"there is no primitive {instruction.primitive!r}", hint="read it with a newer version")
    args = [_resolved(arg, values) for arg in instruction.args]
    options = {name: _resolved(value, values) for name, value in instruction.options.items()}
    if instruction.decision is not None:
        options["decision"] = instruction.decision
    try:
        result = method(*args, **options)
    except (TypeError, ValueError, KeyError) as unfit:  # a trace from a file may call a primitive with anything
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


def _entry(instruction: Instruction) -> dict[str, Any]:
    entry: dict[str, Any] = {"primitive": instruction.primitive, "args": [write_value(a) for a in instruction.args]}
    if instruction.options:
        entry["options"] = {k: write_value(v) for k, v in sorted(instruction.options.items())}
    if instruction.outputs:
        entry["outputs"] = instruction.outputs
    if instruction.decision is not None:
        entry["decision"] = write_value(instruction.decision)
    return entry


def _instruction(position: int, entry: Any) -> Instruction:
    def refuse(problem: str) -> NoReturn:
        raise TraceError(f"instruction {position} of the trace {problem}")

    if not isinstance(entry, dict) or not isinstance(entry.get("primitive"), str):
        refuse("names no primitive")
    if not entry["primitive"].isidentifier():
        refuse(f"names {entry['primitive'][:40]!r}, which is no primitive")
    args, options, outputs = entry.get("args", []), entry.get("options", {}), entry.get("outputs", ())
    if not isinstance(args, list) or not isinstance(options, dict) or not all(map(str.isidentifier, options)):
        refuse("has arguments that are not a list, or options that are not a mapping")
    names = [outputs] if isinstance(outputs, str) else outputs
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and n.isidentifier() for n in names):
        refuse("has results without names")
    try:
        return Instruction(
            entry["primitive"],
            tuple(read_value(a) for a in args),
            {str(k): read_value(v) for k, v in options.items()},
            outputs if isinstance(outputs, str) else tuple(outputs),
            read_value(entry.get("decision")),
        )
    except (InvalidModule, TraceError) as problem:
        refuse(f"({entry['primitive']}): {problem.message}")
