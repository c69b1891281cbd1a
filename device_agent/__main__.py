"""``python -m device_agent serve``: offers this machine's devices to a tracker."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from crossfarm import errors
from crossfarm.wire import channels, serving
from crossfarm.wire.ending import run_program
from device_agent import devices
from device_agent.control import ControlStream
from device_agent.supervisor import Supervisor


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m device_agent", description=__doc__)
    serve = top.add_subparsers(dest="command", required=True).add_parser("serve", help="run until stopped")
    serve.add_argument("--tracker", required=True, metavar="HOST:PORT", help="the farm's tracker")
    serve.add_argument("--name", default=devices.default_agent_name(), help="unique in the farm (default: the host's)")
    serve.add_argument(
        "--devices", default=devices.default_drivers(), metavar="DRIVER,…",
        help="drivers to offer, or all that find a device (default: $CROSSFARM_DEVICES, else all)",
    )  # fmt: skip
    serve.add_argument(
        "--attr", action="append", default=[], metavar="KEY=VALUE", help="an attribute for every device; repeatable"
    )
    serve.add_argument("--host", default="127.0.0.1", help="address that workers listen on (default: 127.0.0.1)")
    serve.add_argument("--ports", default="", metavar="LOW-HIGH", help="range for workers' ports (default: any)")
    serve.add_argument("--advertise", default="", metavar="HOST", help="what clients call workers by (default: --host)")
    serve.add_argument("--state", type=Path, help="directory for caches (default: a temporary one)")
    serve.add_argument("--announce", metavar="FILE", help="write a JSON object there when all devices are ready")
    serve.add_argument("--with-parent", action="store_true", help="stop when the process that started this one ends")
    serve.add_argument("--insecure", action="store_true", help="allow plaintext beyond loopback")
    serve.add_argument("-v", "--verbose", action="store_true", help="log more; show tracebacks")
    return top


def serve(options: argparse.Namespace, state: Path) -> None:
    """Runs the agent until it is told to stop. Raises the error that makes going on useless."""
    found = devices.find(
        options.devices.split(","), agent=options.name, extra=devices.parse_attributes(options.attr), host=options.host
    )
    security = channels.Security(insecure=options.insecure)
    if not (options.insecure or channels.is_loopback(f"{options.host}:0")):
        raise errors.PermissionDenied(
            f"refusing to run sessions in plaintext on {options.host}: it is not a loopback address",
            hint="add --insecure if the network is trusted",
        )
    stop = serving.StopSignal(with_parent=options.with_parent)
    stop.install()
    refused: list[errors.Error] = []
    readiness = devices.Readiness(lambda: serving.announce(options.announce, "agent", ""))

    def on_refused(reason: errors.Error) -> None:
        refused.append(reason)
        stop.set()

    control = ControlStream(
        options.tracker,
        options.name,
        security=security,
        on_registered=readiness.registered,
        on_refused=on_refused,
    )
    supervisor = Supervisor(
        found,
        state=state,
        host=options.host,
        send=control.send,
        on_all_ready=readiness.devices_ready,
        worker_arguments=["--ports", options.ports] if options.ports else [],
        advertise=options.advertise,
    )
    supervisor.start()
    control.start(supervisor)
    try:
        stop.wait()
    finally:
        supervisor.stop()
        control.stop()
    if refused:
        raise refused[0]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code of DESIGN.md."""
    options = parser().parse_args(arguments)
    serving.log_to_stderr(logging.DEBUG if options.verbose else logging.INFO)
    try:
        if options.state is not None:
            options.state.mkdir(parents=True, exist_ok=True)
            serve(options, options.state)
        else:
            with tempfile.TemporaryDirectory(prefix="crossfarm-agent-") as scratch:
                serve(options, Path(scratch))
    except errors.Error as failure:
        if options.verbose:
            logging.exception("stopped")
        print(f"device_agent: {failure}", file=sys.stderr)
        return failure.exit_code
    return 0


if __name__ == "__main__":
    run_program(main)
