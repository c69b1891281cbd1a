"""The FILE of a command: a program (.py, .cfir, .onnx) or an artifact (.cfa), and the targets to build it for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.cli.output import Output, Progress
from clients.sdk.compiler import BuildProgress, BuildResult
from clients.sdk.farm import as_targets
from crossfarm.errors import UsageError

if TYPE_CHECKING:
    from clients.sdk.farm import Farm
    from crossfarm.artifact import Artifact
    from crossfarm.ir.module import IRModule
    from crossfarm.target import Target

PROGRAM_SUFFIXES = (".py", ".cfir", ".onnx")
_PROGRAM = f"a program ({', '.join(PROGRAM_SUFFIXES)})"
ARTIFACT_SUFFIX = ".cfa"

ProgramArgument = Annotated[Path, typer.Argument(metavar="FILE", help=f"{_PROGRAM.capitalize()}.")]
FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help=f"{_PROGRAM.capitalize()} or an artifact ({ARTIFACT_SUFFIX}).")
]
OptLevelOption = Annotated[
    int | None, typer.Option("--opt-level", min=0, max=3, help="Optimization level.", show_default="3")
]


ScheduleOption = Annotated[
    str,
    typer.Option("--schedule", metavar="S", help="'default': rules choose; 'none': loops as written; or one rule."),
]


def is_artifact(path: Path) -> bool:
    """True for an artifact, False for a program, by the name. Raises UsageError for others and for missing files."""
    if path.suffix not in (*PROGRAM_SUFFIXES, ARTIFACT_SUFFIX):
        raise UsageError(f"{path} is neither {_PROGRAM} nor an artifact ({ARTIFACT_SUFFIX})")
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    return path.suffix == ARTIFACT_SUFFIX


def load_program(path: Path) -> IRModule:
    """The module in ``path``. Raises InvalidModule, and UsageError for an artifact, a missing file, and an ONNX model
    where the onnx package is not installed."""
    if is_artifact(path):
        raise UsageError(f"{path} is an artifact, which is built already", hint=f"give {_PROGRAM}")
    from crossfarm.frontends import load

    return load(str(path))


def open_artifact(path: Path) -> Artifact:
    """The artifact in ``path``. Raises InvalidArtifact."""
    from crossfarm.artifact import Artifact

    return Artifact.open(path)


def build(
    farm: Farm,
    module: IRModule,
    target: str | Target | list[str],
    output: Output,
    *,
    opt_level: int | None = None,
    keep_sources: bool = False,
    schedule: str = "default",
    timeout: float | None = None,
    use_cache: bool = True,
) -> BuildResult:
    """Builds with progress on the terminal. Raises as ``Farm.build``."""
    several = len(as_targets(target)) > 1
    with output.progress("building") as progress:
        return farm.compiler.build(
            module,
            as_targets(target),
            opt_level=opt_level,
            keep_sources=keep_sources,
            schedule=schedule,
            timeout=timeout,
            use_cache=use_cache,
            on_progress=lambda step: _show(progress, step, several=several),
        )


def _show(progress: Progress, step: BuildProgress, *, several: bool) -> None:
    if step.step:
        where = f" for {step.target}" if several else ""
        number = f" ({step.index} of {step.count})" if step.count else ""
        progress.say(f"building{where}: {step.step}{number}")
    else:
        progress.say(f"waiting for the compiler: {step.ahead} before this build")
