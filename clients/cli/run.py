"""``crossfarm run``: call a function once on a leased device, and compare what it gives."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from clients.cli import arguments, files, output
from clients.cli import job as jobs
from clients.cli.invocation import JsonOption, TrackerOption, VerboseOption, of
from crossfarm.artifact import Signature
from crossfarm.errors import ArgumentError, UsageError
from crossfarm.wire.v1.artifact_pb2 import Parameter

#: Outputs up to this many elements are printed in full with --json; of any this many for people.
_FEW = 64
_SHOWN = 4


def add_to(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    ctx: typer.Context,
    file: files.FileArgument,
    target: jobs.TargetOption = None,
    select: jobs.SelectOption = "",
    function: jobs.FunctionOption = None,
    given: jobs.InputOption = None,
    wanted: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", metavar="NAME=@FILE", help="Write an output: C=@c.npy.", show_default=False),
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option("--expect", metavar="NAME=@FILE", help="Compare an output: C=@ref.npy.", show_default=False),
    ] = None,
    rtol: Annotated[float, typer.Option(min=0, help="Relative tolerance of --expect.")] = 1e-5,
    atol: Annotated[float, typer.Option(min=0, help="Absolute tolerance of --expect.")] = 1e-6,
    size: jobs.SizeOption = None,
    seed: jobs.SeedOption = 0,
    timeout: jobs.WaitOption = None,
    priority: jobs.PriorityOption = 50,
    call_timeout: jobs.CallTimeoutOption = None,
    session_timeout: jobs.SessionTimeoutOption = None,
    memory: jobs.MemoryOption = None,
    threads: jobs.ThreadsOption = None,
    cpus: jobs.CpusOption = None,
    opt_level: files.OptLevelOption = None,
    schedule: files.ScheduleOption = "default",
    json: JsonOption = False,
    tracker: TrackerOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Run a function of FILE on a device, and check the numbers."""
    invocation = of(ctx)
    to_write = {name: _path(text, "--output") for name, text in _assignments(wanted, "--output")}
    expected = {name: arguments.load_array(_path(text, "--expect")) for name, text in _assignments(expect, "--expect")}
    where = jobs.parse_cpus(cpus)
    options = jobs.JobOptions(
        file, target, select, function, timeout, priority, call_timeout, session_timeout, memory, opt_level, schedule
    )
    with jobs.open_job(invocation, options) as job:
        for name in (*to_write, *expected):
            _output_index(job.signature, name)
        inputs = arguments.Inputs(job.signature, given or [], size or [], seed=seed)
        values = inputs.arguments()
        started = time.perf_counter()
        with invocation.output.progress(f"running {job.signature.name} on {job.device.id}"):
            returned = call(job, values, inputs.outputs(), threads=threads, cpus=where)
        run_seconds = time.perf_counter() - started
        document = job.document()
    outputs = collect(job.signature, values, returned)
    for name, path in to_write.items():
        arguments.save_array(path, outputs[_output_index(job.signature, name)])
    comparisons = []
    for name, reference in expected.items():
        index = _output_index(job.signature, name)
        parameter = job.signature.parameters[index]
        reference = arguments.as_dtype(reference, parameter)
        comparisons.append(arguments.compare(parameter.name, outputs[index], reference, rtol=rtol, atol=atol))
    for comparison in comparisons:
        comparison.check(rtol, atol)
    if json:
        document["run_seconds"] = run_seconds
        document["outputs"] = [_document(job.signature, index, array) for index, array in outputs.items()]
        document["expect"] = [{"name": c.name, "max_abs": c.max_abs, "max_rel": c.max_rel} for c in comparisons]
        invocation.output.document(document)
        return
    _print(invocation.output, job, outputs, comparisons, run_seconds)


def call(
    job: jobs.Job,
    values: list[Any],
    given_outputs: dict[int, Any],
    *,
    threads: int | None = None,
    cpus: list[int] | None = None,
) -> tuple[Any, ...]:
    """Calls the function; returns what it only writes, in parameter order."""
    names = job.signature.outputs
    out = tuple(given_outputs.get(index) for index in names) if given_outputs else None
    returned = job.function(*values, out=out, threads=threads, cpus=cpus)
    return returned if isinstance(returned, tuple) else () if returned is None else (returned,)


def collect(signature: Signature, values: list[Any], returned: tuple[Any, ...]) -> dict[int, Any]:
    """Every buffer that the function writes, by parameter: what it returned, and inputs that it changed in place."""
    changed = {
        index: value
        for index, value in zip(signature.inputs, values)
        if signature.parameters[index].role == Parameter.INOUT
    }
    return dict(sorted({**changed, **dict(zip(signature.outputs, returned))}.items()))


def _assignments(texts: list[str] | None, option: str) -> list[tuple[str, str]]:
    return [arguments.split_assignment(text, option) for text in texts or []]


def _path(text: str, option: str) -> Path:
    if not text.startswith("@"):
        raise UsageError(f"{option} takes a file, not {text!r}", hint=f"write {option} C=@c.npy")
    return Path(text[1:])


def _output_index(signature: Signature, name: str) -> int:
    index = arguments.parameter_index(signature, name)
    if signature.parameters[index].role == Parameter.IN or signature.parameters[index].kind == Parameter.SCALAR:
        raise ArgumentError(f"{signature.name} does not write {name}", hint=f"its signature is {signature}")
    return index


def _document(signature: Signature, index: int, array: Any) -> dict[str, Any]:
    few = array.astype(np.float64) if array.dtype.kind not in "iub" else array
    return {
        "name": signature.parameters[index].name,
        "dtype": signature.parameters[index].dtype,
        "shape": list(array.shape),
        **({"values": few.tolist()} if array.size <= _FEW else {}),
        **_range(array),
    }


def _range(array: Any) -> dict[str, float]:
    if not array.size:
        return {}
    wide = array.astype(np.float64)
    return {"min": float(wide.min()), "max": float(wide.max()), "mean": float(wide.mean())}


def _first(array: Any) -> str:
    """The first values, as "1, 2.5, …"."""
    shown = [f"{value:.6g}" for value in array.reshape(-1)[:_SHOWN].astype(np.float64)]
    return ", ".join([*shown, "…"] if array.size > _SHOWN else shown)


def _print(
    out: output.Output,
    job: jobs.Job,
    outputs: dict[int, Any],
    comparisons: list[arguments.Comparison],
    run_seconds: float,
) -> None:
    rows = []
    for index, array in outputs.items():
        facts = _range(array)
        known = [f"{facts[key]:.6g}" for key in ("min", "max", "mean")] if facts else ["-"] * 3
        shape = "x".join(map(str, array.shape)) or "scalar"
        rows.append([job.signature.describe(index), shape, *known, _first(array)])
    if rows:
        out.table(["output", "shape", "min", "max", "mean", "values"], rows)
    for comparison in comparisons:
        out.line(
            f"{comparison.name} is as expected: largest absolute error {comparison.max_abs:.3g}, "
            f"relative {comparison.max_rel:.3g}"
        )
    if job.built is not None:
        how = "cached" if job.built.cached else output.seconds(job.built.seconds)
        out.note(f"build {how}, lease {output.seconds(job.lease_seconds)}, ran on {job.device.id}: "
                 f"load {output.seconds(job.load_seconds)}, run {output.seconds(run_seconds)}")  # fmt: skip
    else:
        out.note(f"lease {output.seconds(job.lease_seconds)}, ran on {job.device.id}: "
                 f"load {output.seconds(job.load_seconds)}, run {output.seconds(run_seconds)}")  # fmt: skip
