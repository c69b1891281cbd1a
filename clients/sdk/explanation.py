"""What the compiler made of a program, read from an artifact that was built with ``keep_sources``.

Everything is in the artifact (``crossfarm.artifact.sources`` says under which names), so whoever has the file can ask,
and needs no compiler.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crossfarm.artifact import Artifact
from crossfarm.artifact.sources import ASSEMBLY, LLVM, LLVM_OPTIMIZED, SCHEDULES, SCHEDULES_VERSION, step_of
from crossfarm.errors import ArgumentError, InvalidArtifact, NotFound
from crossfarm.ir.calls import calls_of, is_caller
from crossfarm.ir.estimate import Core, Estimate, estimate
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.target import Target

if TYPE_CHECKING:
    from crossfarm.ir.schedule.trace import Trace


@dataclass(frozen=True)
class Step:
    """A step of the pipeline: its number, its name, and the module as it left it, as script text."""

    number: int
    name: str
    script: str

    @cached_property
    def module(self) -> IRModule:
        """The module itself. Raises InvalidModule for a text that is none."""
        from crossfarm.frontends.tvmscript import parse  # most who ask for an explanation only read the text

        return parse(self.script, f"step {self.name}")


@dataclass(frozen=True)
class RuleChoice:
    """What was decided for a block.

    Attributes:
        function, block: whose; block is "" for a function as a whole.
        blocks: all blocks that were scheduled together.
        rule: the rule's name, "" where the block stays as it is written.
        reason: why.
        refused: the rules asked before it, and why each would not.
    """

    function: str
    block: str
    blocks: tuple[str, ...]
    rule: str
    reason: str
    refused: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FunctionEstimate:
    """Static counts of a function, see ``crossfarm.ir.estimate``.

    Attributes:
        program: of the function as it was written.
        code: of the lowered form that code was generated from; None where that is kernels, whose instructions depend on
            the device.
        core: of the target.
    """

    program: Estimate
    code: Estimate | None
    core: Core

    @property
    def share_of_peak(self) -> float:
        """Of one core's arithmetic peak, at most, 0 to 1."""
        assert self.code is not None, "there is no core to speak of"
        return self.code.share_of_peak(self.core, work=self.program)

    @property
    def bound(self) -> str:
        """What takes longest: arithmetic, loads, stores or memory."""
        assert self.code is not None, "there is no core to speak of"
        cycles = self.code.cycles(self.core)
        return max(cycles, key=cycles.__getitem__)


class Explanation:
    """What became of one variant of an artifact.

    Attributes:
        artifact: where it is read from.
        target: what the variant was built for.
        steps: in order.
        choices: the rules' decisions, in program order.
        traces: how each function that rules changed was scheduled, as Python.
        trace_data: the same as plain data; ``trace`` makes it one that replays.
    """

    def __init__(self, artifact: Artifact, variant: int = 0) -> None:
        """Reads the texts of ``artifact.variants[variant]``.

        Raises:
            NotFound: it was built without ``keep_sources``, or has no such variant.
            InvalidArtifact: the texts are not what this release writes.
        """
        if not 0 <= variant < len(artifact.variants):
            raise NotFound(f"artifact {artifact.name!r} has no variant {variant}")
        label = f"variant-{variant}/" if len(artifact.variants) > 1 else ""
        self._sources = {
            name.removeprefix(label): text for name, text in artifact.sources().items() if name.startswith(label)
        }
        if SCHEDULES not in self._sources:
            raise NotFound(
                f"artifact {artifact.name!r} does not say how it was made",
                hint="build it with --keep-sources, or give the program itself",
            )
        self.artifact = artifact
        self.target = Target.from_proto(artifact.variants[variant].target)
        self._entries = {entry.name for entry in artifact.variants[variant].entry_points}
        named = {step_of(file): text for file, text in self._sources.items()}
        self.steps = tuple(Step(*step, named[step]) for step in sorted(step for step in named if step is not None))
        try:
            data = json.loads(self._sources[SCHEDULES])
            if data["version"] != SCHEDULES_VERSION:
                raise ValueError(f"version {data['version']}")
            self.choices = tuple(_choice(entry) for entry in data["choices"])
            self.traces: Mapping[str, str] = {name: str(trace["python"]) for name, trace in data["traces"].items()}
            self.trace_data: Mapping[str, Any] = {name: trace["trace"] for name, trace in data["traces"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as failure:
            raise InvalidArtifact(
                f"{SCHEDULES} of artifact {artifact.name!r} is not what this release reads: {failure}"
            ) from failure

    @cached_property
    def program(self) -> IRModule:
        """The module as it was written."""
        return self.artifact.module()

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the functions that can be called here, then of those that a graph function became calls of."""
        public = [name for name in self.program.functions if name in self._entries]
        called = [choice.function for choice in self.choices] if self.program.graph_functions else []
        return tuple(dict.fromkeys((*public, *called)))

    @property
    def core(self) -> Core:
        """A core of the target, as estimates see it."""
        bits = self.target.attributes.get("vector_bits", 0)
        return Core(vector_bytes=max(8, bits // 8 if isinstance(bits, int) else 0))

    def steps_named(self, name: str) -> tuple[Step, ...]:
        """The steps of a name, some of which run more than once, or of a number. Raises NotFound listing all."""
        found = tuple(step for step in self.steps if name in (step.name, str(step.number)))
        if not found:
            known = ", ".join(dict.fromkeys(step.name for step in self.steps))
            raise NotFound(f"there is no step {name!r}", hint=f"the steps are: {known}")
        return found

    def trace(self, function: str) -> Trace:
        """How rules scheduled a function, to be replayed on ``scheduled_from``. Raises NotFound where they did not."""
        from crossfarm.ir.schedule.trace import Trace  # schedules are much code, and most only read

        if function not in self.trace_data:
            changed = ", ".join(self.trace_data) or "none"
            raise NotFound(f"no rule scheduled function {function!r}", hint=f"they scheduled: {changed}")
        return Trace.from_json(json.dumps(self.trace_data[function]))

    @property
    def scheduled_from(self) -> IRModule:
        """The module that the rules were asked about: what the step before theirs gave."""
        asked = next((step.number for step in self.steps if step.name == "schedule_default"), 0)
        return self.steps[asked - 1].module if asked else self.program

    def llvm(self, *, optimized: bool = True) -> str:
        """LLVM IR, after or before LLVM's own passes."""
        return self._sources.get(LLVM_OPTIMIZED if optimized else LLVM, "")

    def assembly(self, function: str = "") -> str:
        """Assembly text, of everything or of the code of one function."""
        text = self._sources.get(ASSEMBLY, "")
        return _code_of(text, function) if function else text

    def estimate(self, function: str, sizes: Mapping[str, int] | None = None) -> FunctionEstimate:
        """Counts a function. Raises NoSuchFunction, and ArgumentError for a size that is not given or a function that
        only calls others."""
        written = self.program.functions.get(function)
        # what a graph function became: the programs are as they were when the rules were asked about them
        func = written if isinstance(written, PrimFunc) else self.scheduled_from.prim_func(function)
        if is_caller(func):
            calls = len(calls_of(func))
            raise ArgumentError(
                f"{function} makes {calls} {'call' if calls == 1 else 'calls'} of other functions",
                hint="these have estimates of their own",
            )
        program = estimate(func, self.core, sizes)
        if self.target.kind != "llvm":
            return FunctionEstimate(program, None, self.core)
        lowered = self.steps[-1].module if self.steps else self.program
        return FunctionEstimate(program, estimate(lowered.prim_func(function), self.core, sizes), self.core)


def _choice(entry: Mapping[str, Any]) -> RuleChoice:
    return RuleChoice(
        function=str(entry["function"]),
        block=str(entry["block"]),
        blocks=tuple(map(str, entry["blocks"])),
        rule=str(entry["rule"]),
        reason=str(entry["reason"]),
        refused=tuple((str(rule), str(reason)) for rule, reason in entry["refused"]),
    )


def _code_of(text: str, function: str) -> str:
    """The parts of assembly text that belong to a function: its body, its entry, the bodies of its parallel loops."""
    own = re.compile(rf'"?crossfarm_{re.escape(function)}(\.[\w.]+)?"?:')
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        inside = inside or own.match(line) is not None
        if inside:
            kept.append(line)
            inside = not line.startswith(".Lfunc_end")
    return "\n".join(kept) + "\n" if kept else ""
