"""``crossfarm explain``: what the compiler makes of a program, and why."""

from __future__ import annotations

import math
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clients.cli import files
from clients.cli.arguments import read_sizes
from clients.cli.invocation import Invocation, JsonOption, TrackerOption, VerboseOption, of
from clients.cli.job import SizeOption
from clients.cli.output import quantity
from crossfarm.errors import ArgumentError, NoSuchFunction, UsageError

if TYPE_CHECKING:
    from clients.sdk.explanation import Explanation, FunctionEstimate, RuleChoice, Step
    from crossfarm.artifact import Artifact
    from crossfarm.ir.module import IRModule

#: What ``--step`` takes besides a step's name or number.
_ALL = "all"


def add_to(app: typer.Typer) -> None:
    app.command("explain")(explain)


def explain(
    ctx: typer.Context,
    file: files.FileArgument,
    target: Annotated[
        str,
        typer.Option("--target", "-t", metavar="T", help="What to build a program for: a tag, kind, triple or JSON."),
    ] = "llvm",
    function: Annotated[
        str | None, typer.Option("--function", "-f", metavar="NAME", help="Only this one.", show_default="all")
    ] = None,
    step: Annotated[
        str | None,
        typer.Option(
            "--step", metavar="NAME", help="Print the module after this step (a name, a number, or 'all') and no more."
        ),
    ] = None,
    llvm: Annotated[bool, typer.Option("--llvm", help="Print the optimized LLVM IR and no more.")] = False,
    assembly: Annotated[bool, typer.Option("--assembly", "-S", help="Print the assembly and no more.")] = False,
    size: SizeOption = None,
    opt_level: files.OptLevelOption = None,
    schedule: files.ScheduleOption = "default",
    json: JsonOption = False,
    tracker: TrackerOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Show what the compiler makes of FILE: which rule schedules what and why, the schedule, each step, an estimate.

    FILE is a program, which the farm's compiler service builds, or an artifact that was built with --keep-sources.
    """
    from clients.sdk.explanation import Explanation

    invocation = of(ctx)
    if sum((step is not None, llvm, assembly)) > 1:
        raise UsageError("--step, --llvm and --assembly exclude one another")
    sizes = read_sizes(size or [])
    found = Explanation(_artifact(invocation, file, target, opt_level, schedule))
    functions = _functions(found, function, file)
    if json:
        invocation.output.document(_document(found, functions, sizes, step=step, llvm=llvm, assembly=assembly))
    elif step is not None:
        _print_steps(invocation, found, step, function)
    elif llvm:
        invocation.output.line(found.llvm().rstrip("\n"))
    elif assembly:
        for name in functions if function is not None else ("",):
            invocation.output.line(found.assembly(name).rstrip("\n"))
    else:
        _print_summary(invocation, found, functions, sizes)


def _artifact(invocation: Invocation, file: Path, target: str, opt_level: int | None, schedule: str) -> Artifact:
    if files.is_artifact(file):
        return files.open_artifact(file)
    module = files.load_program(file)
    with invocation.connect() as farm:
        return files.build(
            farm, module, target, invocation.output, opt_level=opt_level, keep_sources=True, schedule=schedule
        ).artifact


def _functions(found: Explanation, wanted: str | None, file: Path) -> tuple[str, ...]:
    if wanted is None:
        return found.functions
    if wanted not in found.functions:
        raise NoSuchFunction(f"{file} has no function {wanted!r}; it has: {', '.join(found.functions)}")
    return (wanted,)


def _steps(found: Explanation, wanted: str) -> tuple[Step, ...]:
    return found.steps if wanted == _ALL else found.steps_named(wanted)


def _print_steps(invocation: Invocation, found: Explanation, wanted: str, function: str | None) -> None:
    for step in _steps(found, wanted):
        invocation.output.line(f"# after step {step.number}, {step.name}\n{_text(step, function)}")


def _text(step: Step, function: str | None) -> str:
    if function is None:
        return step.script
    if function not in step.module.functions:
        return f"# there is no {function} here\n"
    return _only(step.module, function).script()


def _only(module: IRModule, function: str) -> IRModule:
    return module.with_functions({function: module[function]})


def _print_summary(
    invocation: Invocation, found: Explanation, functions: tuple[str, ...], sizes: dict[str, int]
) -> None:
    out = invocation.output
    out.line(f"for {found.target}")
    for name in functions:
        out.line(f"\nfunction {name}")
        out.line("\n  schedule")
        for choice in found.choices:
            if choice.function == name:
                for line in _choice_lines(choice):
                    out.line(f"    {line}")
        if name in found.traces:
            out.line("\n  trace")
            for line in found.traces[name].rstrip("\n").splitlines():
                out.line(f"    {line}")
        out.line("\n  estimate")
        for line in _estimate_lines(found, name, sizes):
            out.line(f"    {line}")
    out.line("\nsteps")
    before = ""
    for step in found.steps:
        change = "" if step.script != before else "  (no change)"
        out.line(f"  {step.number:2} {step.name}: {len(step.script.splitlines())} lines{change}")
        before = step.script
    more = "LLVM IR: --llvm; assembly: --assembly" if found.target.kind == "llvm" else "kernels: crossfarm inspect"
    out.note(f"the module after a step: --step NAME; {more}")


def _choice_lines(choice: RuleChoice) -> list[str]:
    what = f"blocks {', '.join(choice.blocks)}" if len(choice.blocks) > 1 else f"block {choice.block}"
    lines = [f"{what if choice.block else 'as a whole'}: {choice.rule or 'as written'}, because {choice.reason}"]
    return lines + [f"  not {rule}: {reason}" for rule, reason in choice.refused]


def _estimate_lines(found: Explanation, name: str, sizes: dict[str, int]) -> list[str]:
    try:
        counted = found.estimate(name, sizes)
    except ArgumentError as missing:
        return [f"none: {missing.message} ({missing.hint})"]
    program, code, core = counted.program, counted.code, counted.core
    work = (
        f"operations {quantity(program.operations)}, at least {quantity(program.read)}B read and "
        f"{quantity(program.written)}B written: {program.intensity:.3g} operations a byte"
    )
    if code is None:
        return [work]
    return [
        work,
        f"instructions on {core.vector_bytes * 8}-bit vectors: {quantity(code.arithmetic)} arithmetic, "
        f"{quantity(code.loads)} loads, {quantity(code.stores)} stores",
        f"at most {100 * counted.share_of_peak:.0f} % of a core's peak of {core.peak()} float32 operations a cycle, "
        f"bound by {counted.bound}",
    ]


def _document(
    found: Explanation,
    functions: tuple[str, ...],
    sizes: dict[str, int],
    *,
    step: str | None,
    llvm: bool,
    assembly: bool,
) -> dict[str, Any]:
    only = functions[0] if len(functions) == 1 < len(found.functions) else None
    document: dict[str, Any] = {
        "artifact": found.artifact.digest,
        "target": loads(found.target.to_json()),
        "functions": {
            name: {
                "choices": [_choice_document(choice) for choice in found.choices if choice.function == name],
                "trace": found.trace_data.get(name),
                "trace_python": found.traces.get(name),
                "estimate": _estimate_document(found, name, sizes),
            }
            for name in functions
        },
        "steps": [
            {"number": each.number, "name": each.name, "module": _text(each, only)}
            for each in _steps(found, step or _ALL)
        ],
    }
    if llvm:
        document["llvm"] = found.llvm()
    if assembly:
        document["assembly"] = "\n".join(found.assembly(name) for name in functions)
    return document


def _choice_document(choice: RuleChoice) -> dict[str, Any]:
    refused = [{"rule": rule, "reason": reason} for rule, reason in choice.refused]
    return {
        "block": choice.block,
        "blocks": list(choice.blocks),
        "rule": choice.rule,
        "reason": choice.reason,
        "refused": refused,
    }


def _estimate_document(found: Explanation, name: str, sizes: dict[str, int]) -> dict[str, Any] | None:
    try:
        counted: FunctionEstimate = found.estimate(name, sizes)
    except ArgumentError:
        return None
    program, code = counted.program, counted.code
    work = {
        "operations": program.operations,
        "bytes_read": program.read,
        "bytes_written": program.written,
        "operations_per_byte": program.intensity if math.isfinite(program.intensity) else None,
    }
    if code is None:
        return work
    return {
        **work,
        "arithmetic_instructions": code.arithmetic,
        "load_instructions": code.loads,
        "store_instructions": code.stores,
        "peak_operations_per_cycle": counted.core.peak(),
        "share_of_peak": counted.share_of_peak,
        "bound": counted.bound,
    }
