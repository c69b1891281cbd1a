"""``crossfarm build``: a program to an artifact file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clients.cli import files, output
from clients.cli.invocation import JsonOption, TrackerOption, VerboseOption, of


def add_to(app: typer.Typer) -> None:
    app.command("build")(build)


def build(
    ctx: typer.Context,
    file: files.ProgramArgument,
    target: Annotated[
        list[str], typer.Option("--target", "-t", metavar="T", help="A tag, kind, triple or JSON; repeatable.")
    ] = ["llvm"],  # noqa: B006 - typer copies it
    out: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT.cfa", help="Default: FILE with the suffix .cfa.")
    ] = None,
    opt_level: files.OptLevelOption = None,
    schedule: files.ScheduleOption = "default",
    keep_sources: Annotated[
        bool, typer.Option("--keep-sources", help="Keep generated assembly and the module after each pass.")
    ] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Build even what was built before.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Seconds that the build may take.")] = None,
    json: JsonOption = False,
    tracker: TrackerOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Build FILE for one target or several, into one artifact."""
    invocation = of(ctx)
    module = files.load_program(file)
    with invocation.connect() as farm:
        built = files.build(
            farm,
            module,
            target,
            invocation.output,
            opt_level=opt_level,
            keep_sources=keep_sources,
            schedule=schedule,
            timeout=timeout,
            use_cache=not no_cache,
        )
    path = out or file.with_suffix(files.ARTIFACT_SUFFIX)
    built.artifact.save(path)
    constants = built.artifact.constant_sizes
    if json:
        invocation.output.document(
            {
                "output": str(path),
                "digest": built.artifact.digest,
                "bytes": built.artifact.size,
                "constants": {"count": len(constants), "bytes": sum(constants.values())},
                "cached": built.cached,
                "seconds": built.seconds,
                "steps": built.steps,
                "targets": target,
            }
        )
        return
    how = "from the cache" if built.cached else f"built in {output.seconds(built.seconds)}"
    size = output.size(built.artifact.size)
    if constants:
        size += f" and {output.size(sum(constants.values()))} of constants"
        size += "" if built.artifact.constants else ", which are not in it"
    invocation.output.line(f"{path}: {size}, {how}, sha256 {built.artifact.digest}")
