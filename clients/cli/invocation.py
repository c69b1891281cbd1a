"""What every command shares: the options ``--tracker``, ``-v`` and ``--json``, and the way to the farm."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clients.cli.output import Output

if TYPE_CHECKING:
    from clients.sdk.farm import Farm


@dataclass
class Invocation:
    """One run of the command line.

    Attributes:
        tracker: what ``--tracker`` said, None if it did not.
        verbose: show tracebacks.
        output: where results, tables and progress go.
    """

    tracker: str | None = None
    verbose: bool = False
    output: Output = field(default_factory=Output)

    def connect(self) -> Farm:
        """The farm by the precedence of ``clients.sdk.config``; says so where a private one is started."""
        from clients.sdk import config
        from clients.sdk.farm import connect

        if config.resolve(self.tracker).tracker == config.EMBEDDED:
            with self.output.progress("starting a private farm"):
                return connect(self.tracker)
        return connect(self.tracker)


def _set(name: str) -> Any:
    """A parameter callback that writes the value into the Invocation; what was given closest to the command wins."""

    def store(ctx: typer.Context, value: Any) -> Any:
        if value:
            setattr(ctx.find_root().obj, name, value)
        return value

    return store


def _set_json(ctx: typer.Context, value: bool) -> bool:
    ctx.find_root().obj.output.json = value
    return value


TrackerOption = Annotated[
    str | None,
    typer.Option(
        "--tracker",
        metavar="HOST:PORT",
        help="The farm's tracker, or 'embedded' for a private farm. [default: CROSSFARM_TRACKER, the farm of "
        "`crossfarm up`, the configuration file, else a private farm]",
        callback=_set("tracker"),
        show_default=False,
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show tracebacks of errors.", callback=_set("verbose"))
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output.", callback=_set_json)
]


def of(ctx: typer.Context) -> Invocation:
    """The Invocation that a command runs under."""
    found = ctx.find_root().obj
    assert isinstance(found, Invocation)
    return found
