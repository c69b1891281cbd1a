"""``crossfarm tracker|compiler|agent serve``: the programs one by one, each with its own arguments."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable

import typer

from crossfarm.errors import UsageError

#: Command → the module that is the program, and the extra of the distribution that it needs.
PROGRAMS = {
    "tracker": ("tracker", "tracker"),
    "compiler": ("compiler_service", "compiler"),
    "agent": ("device_agent", ""),
}
_HELP = {
    "tracker": "The tracker: knows every device, queues and leases them.",
    "compiler": "The compiler service: builds modules into artifacts.",
    "agent": "The device agent: offers this machine's devices to a tracker.",
}


def add_to(app: typer.Typer) -> None:
    for name in PROGRAMS:
        app.command(
            name,
            help=f"{_HELP[name]} Takes: serve ARGUMENTS…; serve --help lists them.",
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
        )(_command(name))


def _command(name: str) -> Callable[[typer.Context], None]:
    def command(ctx: typer.Context) -> None:
        execute(name, list(ctx.args))

    return command


def execute(name: str, arguments: list[str]) -> None:
    """Becomes the program: this process is replaced, so that signals and the exit code are the program's own."""
    module, extra = PROGRAMS[name]
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"the {name} is not installed here", hint=f"pip install 'crossfarm[{extra or 'client'}]'")
    command = [sys.executable, "-m", module, *arguments]
    sys.stdout.flush()
    if sys.platform == "win32":  # exec would return to the shell at once
        raise typer.Exit(subprocess.call(command))
    os.execv(sys.executable, command)
