"""``crossfarm bench``: how long a function takes on a leased device; queue and transfer time are never in it."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import numpy as np
import typer

from clients.cli import arguments, files, output
from clients.cli import job as jobs
from clients.cli.invocation import JsonOption, TrackerOption, VerboseOption, of
from clients.sdk.profile import COLUMNS, Profile

PERCENTILES = (50, 90, 95, 99)


def add_to(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    ctx: typer.Context,
    file: files.FileArgument,
    target: jobs.TargetOption = None,
    select: jobs.SelectOption = "",
    function: jobs.FunctionOption = None,
    given: jobs.InputOption = None,
    repeat: Annotated[int, typer.Option(min=1, help="Samples to take.")] = 20,
    warmup: Annotated[int, typer.Option(min=0, help="Calls before the first sample.")] = 3,
    min_repeat_ms: Annotated[float, typer.Option(min=0, help="A sample repeats the call at least this long.")] = 10.0,
    cooldown_ms: Annotated[float, typer.Option(min=0, help="Pause between samples.")] = 0.0,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also show the time of each step, the longest first.")
    ] = False,
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
    """Measure a function of FILE on a device."""
    invocation = of(ctx)
    where = jobs.parse_cpus(cpus)
    options = jobs.JobOptions(
        file, target, select, function, timeout, priority, call_timeout, session_timeout, memory, opt_level, schedule
    )
    with jobs.open_job(invocation, options) as job:
        inputs = arguments.Inputs(job.signature, given or [], size or [], seed=seed).arguments()
        with invocation.output.progress(f"measuring {job.signature.name} on {job.device.id}"):
            stats = job.function.benchmark(
                *inputs,
                warmup=warmup,
                repeat=repeat,
                min_repeat_ms=min_repeat_ms,
                cooldown_ms=cooldown_ms,
                threads=threads,
                cpus=where,
            )
        found: Profile | None = None
        if profile:
            with invocation.output.progress(f"profiling {job.signature.name} on {job.device.id}"):
                found = job.function.profile(*inputs, warmup=0, repeat=repeat, threads=threads, cpus=where)
        document = job.document()
    samples = np.asarray(stats.samples, dtype=np.float64)
    facts = summary(samples)
    if json:
        document["samples"] = samples.tolist()
        document["seconds"] = facts
        document["environment"] = dict(stats.environment)
        if found is not None:
            document["profile"] = _document(found)
        invocation.output.document(document)
        return
    invocation.output.table(
        ["function", "device", *facts], [[job.signature.name, job.device.id, *map(output.seconds, facts.values())]]
    )
    if found is not None:
        invocation.output.table(COLUMNS, [step.cells() for step in found.longest()])
        invocation.output.line(f"{output.seconds(found.total)} in {len(found.steps)} steps")
        if found.whole:
            invocation.output.note(f"{job.device.id} tells the time of {job.signature.name} as a whole only")


def _document(profile: Profile) -> dict[str, Any]:
    """All of it, steps in the order that they run in; times in seconds."""
    return {
        "whole": profile.whole,
        "seconds": profile.total,
        "steps": [dataclasses.asdict(step) for step in profile.steps],
        "runs": [list(run) for run in profile.runs],
        "environment": dict(profile.environment),
    }


def summary(samples: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, float]:
    """Seconds by name: min, mean, median, p90, p95, p99, max, std (of the sample, 0 for a single one)."""
    median, *tail = np.percentile(samples, PERCENTILES)
    return {
        "min": float(samples.min()),
        "mean": float(samples.mean()),
        "median": float(median),
        **{f"p{percentile}": float(value) for percentile, value in zip(PERCENTILES[1:], tail)},
        "max": float(samples.max()),
        "std": float(samples.std(ddof=1)) if samples.size > 1 else 0.0,
    }
