"""``crossfarm up`` and ``crossfarm down``: a farm on this machine that stays."""

from __future__ import annotations

from typing import Annotated

import typer

from clients.cli.invocation import JsonOption, VerboseOption, of
from clients.sdk import supervised
from crossfarm.wire.serving import StopSignal


def add_to(app: typer.Typer) -> None:
    app.command("up")(up)
    app.command("down")(down)


def up(
    ctx: typer.Context,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it runs; it stays.")] = False,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where the tracker listens; port 0 for any.")
    ] = "127.0.0.1:0",
    devices: Annotated[
        str,
        typer.Option(
            "--agent-devices", metavar="DRIVER,…", help="What the agent offers.", show_default="every device found"
        ),
    ] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow plaintext beyond loopback.")] = False,
    advertise: Annotated[
        str, typer.Option(metavar="HOST", help="How other machines call this one.", show_default="the host's name")
    ] = "",
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run a farm on this machine and restart what dies, until `crossfarm down` or Ctrl-C.

    While it runs, every command and `crossfarm.connect()` of this user finds it by itself.
    """
    output = of(ctx).output
    if detach:
        arguments = ["--listen", listen, "--advertise", advertise]
        arguments += ["--agent-devices", devices] if devices else []
        arguments += ["--insecure"] if insecure else []
        with output.progress("starting the farm"):
            running = supervised.start_detached(arguments)
        if json:
            output.document({"tracker": running.tracker, "compiler": running.compiler, "pid": running.pid})
        else:
            output.line(f"the farm runs: tracker {running.tracker}, logs in {running.directory}")
        return
    supervised.refuse_second()
    stop = StopSignal()
    stop.install()
    farm = supervised.SupervisedFarm(
        listen=listen, devices=devices, insecure=insecure, advertise=advertise, report=output.note
    )
    farm.run(stop)


def down(ctx: typer.Context, json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """Stop the farm of `crossfarm up`, and wait until it is gone."""
    output = of(ctx).output
    with output.progress("stopping the farm"):
        stopped = supervised.stop_running()
    if json:
        output.document({"stopped": stopped is not None})
    elif stopped is None:
        output.line("no farm runs")
    else:
        output.line(f"stopped: tracker {stopped.tracker}")
