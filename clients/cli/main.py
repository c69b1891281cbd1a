"""The ``crossfarm`` command: its groups, and how it ends.

Exit codes: 0 done; 1 the program or the request is wrong; 2 the command line or the configuration is wrong; 3 the farm
failed, worth retrying; 130 interrupted. A failure prints its message and the next step on standard error, and with
``--json`` also ``{"error": …}`` as the one document on standard output.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from clients.cli import bench, build, demo, devices, inspect, local, run, serve
from clients.cli.invocation import Invocation, TrackerOption, VerboseOption
from crossfarm._version import __version__
from crossfarm.errors import Error, InfrastructureError, UsageError

_EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="crossfarm",
    help="Build IRModules for any device, lease a real one, run and measure them there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (devices, build, run, bench, inspect, local, serve, demo):
    group.add_to(app)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    tracker: TrackerOption = None,
    verbose: VerboseOption = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version)] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line ``arguments`` (by default the process's own) and returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    invocation = Invocation()
    try:
        status = app(arguments, prog_name="crossfarm", standalone_mode=False, obj=invocation)
        sys.stdout.flush()  # a reader that went away shows here, not at interpreter exit
        return status if isinstance(status, int) else 0
    except typer.TyperException as failure:
        invocation.output.json = "--json" in arguments
        error = UsageError(failure.format_message(), hint="see crossfarm --help, or --help after the command")
        invocation.output.error(error, verbose=False)
        return error.exit_code
    except Error as failure:
        invocation.output.error(failure, verbose=invocation.verbose)
        return failure.exit_code
    except (KeyboardInterrupt, typer.Abort):
        invocation.output.note("interrupted")
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as failure:  # noqa: BLE001 - the boundary: never a bare traceback
        invocation.output.error(failure, verbose=invocation.verbose)
        return InfrastructureError.exit_code


if __name__ == "__main__":
    sys.exit(main())
