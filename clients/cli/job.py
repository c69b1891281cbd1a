"""What ``run`` and ``bench`` share: from FILE to a function loaded on a leased device.

The device is held as shortly as possible: a program is built before the lease wherever it is known what for, that is
with ``--target``, or when all devices that meet the selector have one and the same target.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clients.cli import files
from clients.cli.invocation import Invocation
from clients.sdk.compiler import BuildResult
from clients.sdk.lease import QueuePosition
from crossfarm.errors import NoSuchFunction, UsageError

if TYPE_CHECKING:
    from clients.sdk.device import Device
    from clients.sdk.farm import Farm
    from clients.sdk.loaded import LoadedFunction
    from crossfarm.artifact import Artifact, Signature
    from crossfarm.ir.module import IRModule
    from crossfarm.target import Target
    from crossfarm.wire.v1.artifact_pb2 import Variant

TargetOption = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", metavar="T", help="What to build a program for.", show_default="the device's own"),
]
SelectOption = Annotated[
    str, typer.Option("--select", "-s", metavar="EXPR", help="The device: kind=cpu,arch=aarch64,memory>=2GiB.")
]
FunctionOption = Annotated[
    str | None,
    typer.Option("--function", "-f", metavar="NAME", help="Which one.", show_default="only one or main"),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="NAME=VALUE",
        help="A=@a.npy, A=2x2xf32=1,2,3,4, n=5; what is not given is made up at random.",
        show_default=False,
    ),
]
SizeOption = Annotated[
    list[str] | None,
    typer.Option("--size", metavar="NAME=N", help="A symbolic size of inputs that are made up.", show_default=False),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the random inputs.")]
WaitOption = Annotated[
    float | None, typer.Option("--timeout", min=0, help="Seconds to wait for a device.", show_default="for ever")
]
PriorityOption = Annotated[int, typer.Option("--priority", min=0, max=100, help="In the queue; higher goes first.")]
CallTimeoutOption = Annotated[
    float | None,
    typer.Option("--call-timeout", min=0.001, help="Seconds a call may take.", show_default="the agent's"),
]
SessionTimeoutOption = Annotated[
    float | None,
    typer.Option("--session-timeout", min=0.001, help="Seconds the session may take.", show_default="no limit"),
]
MemoryOption = Annotated[
    str | None, typer.Option("--memory", help="What the program may use: 512MiB.", show_default="the agent's")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Of parallel loops.", show_default="one for each CPU"),
]
CpusOption = Annotated[
    str | None,
    typer.Option("--cpus", metavar="N-M,…", help="The device's CPUs that it runs on: 0,1 or 4-7.", show_default="any"),
]


@dataclass(frozen=True)
class JobOptions:
    """What the command line says about a job; see the options above."""

    file: Path
    targets: list[str] | None
    select: str
    function: str | None
    timeout: float | None
    priority: int
    call_timeout: float | None
    session_timeout: float | None
    memory: str | None
    opt_level: int | None
    schedule: str


@dataclass(frozen=True)
class Job:
    """A function on a leased device.

    Attributes:
        artifact, built: what runs; how it was built, None for an artifact that was given.
        device: leased until the job ends.
        function: callable with numpy arrays; signature: of its arguments.
        variant: the part of the artifact that the device runs.
        lease_seconds: from asking for the device to having a session on it, waiting in the queue included.
        load_seconds: until the function could be called.
    """

    artifact: Artifact
    built: BuildResult | None
    device: Device
    function: LoadedFunction
    signature: Signature
    variant: Variant
    lease_seconds: float
    load_seconds: float

    def document(self) -> dict[str, Any]:
        """The facts for a JSON document."""
        built = self.built
        return {
            "function": self.signature.name,
            "device": self.device.id,
            "artifact": self.artifact.digest,
            "build": None
            if built is None
            else {"cached": built.cached, "seconds": built.seconds, "steps": built.steps},
            "lease_seconds": self.lease_seconds,
            "load_seconds": self.load_seconds,
        }


@contextmanager
def open_job(invocation: Invocation, options: JobOptions) -> Iterator[Job]:
    """The job, its device leased while the body runs. Raises as ``build``, ``acquire`` and ``load`` do."""
    module, artifact = _open(options)
    with invocation.connect() as farm:
        built = None
        if module is not None and (targets := options.targets or _common_target(farm, options.select)):
            built = _build(farm, module, targets, invocation, options)
            artifact = built.artifact
        if artifact is not None:
            pick_function(artifact, options)  # a wrong name should not cost a lease
        started = time.perf_counter()
        select = options.select or (_kind_for(farm, artifact) if artifact is not None else "")
        with _acquire(farm, invocation, options, select) as device:
            lease_seconds = time.perf_counter() - started
            if artifact is None:
                assert module is not None
                built = _build(farm, module, device.target, invocation, options)
                artifact = built.artifact
            name = pick_function(artifact, options)
            started = time.perf_counter()
            loaded = device.load(artifact)
            function = loaded[name]
            load_seconds = time.perf_counter() - started
            yield Job(
                artifact, built, device, function, function.signature, loaded.variant, lease_seconds, load_seconds
            )


def pick_function(artifact: Artifact, options: JobOptions) -> str:
    """The function that is meant: the one named, the only one, or ``main``. Functions that prepare constants for others
    are meant only where they are named. Raises NoSuchFunction."""
    from crossfarm.artifact.constants import preparing_functions

    names = list(artifact.entry_points)
    if options.function is None:
        preparing = set().union(*map(preparing_functions, artifact.variants))
        names = [name for name in names if name not in preparing]
    if options.function is None:
        if len(names) == 1 or "main" in names:
            return "main" if "main" in names else names[0]
        raise NoSuchFunction(
            f"{options.file} has {len(names)} functions and none is main: {', '.join(names) or 'none'}",
            hint="say which with --function NAME",
        )
    if options.function not in names:
        raise NoSuchFunction(f"{options.file} has no function {options.function!r}; it has: {', '.join(names)}")
    return options.function


def parse_cpus(text: str | None) -> list[int] | None:
    """``"0,4-7"`` → its numbers. Raises UsageError."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UsageError(f"--cpus takes numbers and ranges of them, not {text!r}", hint="write --cpus 0,4-7")
        numbers.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return numbers


def _open(options: JobOptions) -> tuple[IRModule | None, Artifact | None]:
    """The program or the artifact in the file."""
    if not files.is_artifact(options.file):
        return files.load_program(options.file), None
    if options.targets or options.opt_level is not None or options.schedule != "default":
        raise UsageError(f"{options.file} is built already", hint="leave --target, --opt-level and --schedule out")
    return None, files.open_artifact(options.file)


def _build(
    farm: Farm, module: IRModule, target: Target | list[str], invocation: Invocation, options: JobOptions
) -> BuildResult:
    return files.build(farm, module, target, invocation.output, opt_level=options.opt_level, schedule=options.schedule)


def _common_target(farm: Farm, select: str) -> Target | None:
    """The one target of all devices that could be leased, None if there are several or none."""
    found = {device.target for device in farm.devices(select) if device.state not in ("offline", "unhealthy")}
    return found.pop() if len(found) == 1 else None


def _kind_for(farm: Farm, artifact: Artifact) -> str:
    """The selector of devices of the one kind that the artifact is for, where the farm has such; else any."""
    kinds = {variant.runtime for variant in artifact.variants}
    select = f"kind={kinds.pop()}" if len(kinds) == 1 else ""
    return select if farm.devices(select) else ""


def _acquire(farm: Farm, invocation: Invocation, options: JobOptions, select: str) -> Device:
    with invocation.output.progress("asking for a device") as progress:

        def on_queued(place: QueuePosition) -> None:
            busy = f"; {place.busy_with}" if place.busy_with else ""
            progress.say(f"waiting for a device: place {place.position}, {place.matching} would do{busy}")

        return farm.acquire(
            select,
            timeout=options.timeout,
            priority=options.priority,
            call_timeout=options.call_timeout,
            session_timeout=options.session_timeout,
            memory=options.memory,
            on_queued=on_queued,
        )
