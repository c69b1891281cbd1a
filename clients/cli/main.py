"""The ``crossfarm`` command: its groups, and how it ends.

Exit codes: 0 done; 1 the program or the request is wrong; 2 the command line or the configuration is wrong; 3 the farm
failed, worth retrying; 128 and the signal's number for a command that was interrupted (130 for Ctrl-C). A failure
prints its message and the next step on standard error, and with ``--json`` also ``{"error": …}`` as the one document
on standard output.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from clients.cli import bench, build, demo, devices, explain, inspect, local, run, serve
from clients.cli.interrupts import Interrupts
from clients.cli.invocation import Invocation, TrackerOption, VerboseOption
from crossfarm._version import __version__
from crossfarm.errors import Error, InfrastructureError, UsageError
from crossfarm.wire.ending import run_program

app = typer.Typer(
    name="crossfarm",
    help="Build IRModules for any device, lease a real one, run and measure them there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (devices, build, run, bench, inspect, explain, local, serve, demo):
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
    invocation, interrupts = Invocation(), Interrupts()
    try:
        interrupts.install()
        status = app(arguments, prog_name="crossfarm", standalone_mode=False, obj=invocation)
        sys.stdout.flush()  # a reader that went away shows here, not at interpreter exit
        return status if isinstance(status, int) else 0
    except typer.TyperException as failure:
        if not failure.format_message():  # no arguments at all: the help has been printed
            return UsageError.exit_code
        invocation.output.json = "--json" in arguments
        usage = UsageError(failure.format_message(), hint="see crossfarm --help, or --help after the command")
        invocation.output.error(usage, verbose=False)
        return usage.exit_code
    except Error as failure:
        invocation.output.error(failure, verbose=invocation.verbose)
        return failure.exit_code
    except (KeyboardInterrupt, typer.Abort):
        invocation.output.note("interrupted")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as failure:  # the disk is full, a limit of the system is reached
        refused = InfrastructureError(f"the system refused: {failure}").with_traceback(failure.__traceback__)
        invocation.output.error(refused, verbose=invocation.verbose)
        return refused.exit_code
    except Exception as failure:  # noqa: BLE001 - the boundary: never a bare traceback
        invocation.output.error(failure, verbose=invocation.verbose)
        return InfrastructureError.exit_code
    finally:
        interrupts.over()


def run_and_exit() -> NoReturn:
    """Entry point of the installed command."""
    run_program(main)


if __name__ == "__main__":
    run_and_exit()
