"""``python -m tracker serve``: one tracker, from start to SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

import grpc.aio

from crossfarm.errors import Error
from crossfarm.wire import channels, serving
from crossfarm.wire.ending import run_program
from crossfarm.wire.v1 import tracker_pb2, tracker_pb2_grpc

from .core import Core
from .machine import Machine
from .rpc import add_standard_services
from .service import TrackerService
from .state import Config
from .store import Store, sqlite_url

_STOP_GRACE_SECONDS = 1.0
_SERVICE_NAME = tracker_pb2.DESCRIPTOR.services_by_name["Tracker"].full_name


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    serving.log_to_stderr(options.log_level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        stop = serving.StopSignal(with_parent=options.with_parent)
        stop.install()
        failure = asyncio.run(_serve(options, stop))
        if failure is not None:
            raise failure
    except Error as error:
        print(f"tracker: {error}", file=sys.stderr)
        return error.exit_code
    return 0


async def _serve(options: argparse.Namespace, stop: serving.StopSignal) -> Error | None:
    failures: list[Error] = []

    def fail(error: Error) -> None:
        failures.append(error)
        stop.set()

    security = serving.security_of(options)
    store = Store(sqlite_url(Path(options.state)))
    try:
        machine = Machine(_config(options), stores=tuple(options.compiler))
        core = Core(machine, store, on_failure=fail)
        server = grpc.aio.server(options=channels.SERVER_OPTIONS)
        tracker_pb2_grpc.add_TrackerServicer_to_server(TrackerService(core, options.compiler), server)
        await add_standard_services(server, [_SERVICE_NAME])
        address = channels.listen(server, options.listen, security)
        core.start()
        await server.start()
        serving.announce(options.announce, "tracker", address)
        await asyncio.to_thread(stop.wait)
        core.stop()
        await server.stop(_STOP_GRACE_SECONDS)
    finally:
        store.close()
    return failures[0] if failures else None


def _config(options: argparse.Namespace) -> Config:
    return Config(
        heartbeat_interval_ms=_milliseconds(options.heartbeat),
        dead_after_ms=_milliseconds(options.dead_after),
        reattach_ms=_milliseconds(options.reattach),
        restart_grace_ms=_milliseconds(options.restart_grace),
        resume_grace_ms=_milliseconds(options.resume_grace),
        start_timeout_ms=_milliseconds(options.start_timeout),
        default_ttl_ms=_milliseconds(options.ttl),
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tracker", description="Knows every device, queues and leases them."
    )
    serve = parser.add_subparsers(dest="command", required=True).add_parser("serve", help="run a tracker")
    add = serve.add_argument
    add("--listen", default="127.0.0.1:7461", metavar="HOST:PORT", help="port 0 picks one (default %(default)s)")
    add("--state", required=True, metavar="DIR", help="where devices and leases survive a restart")
    add(
        "--compiler", action="append", default=[], metavar="HOST:PORT", help="a compiler service to tell of; repeatable"
    )
    add("--announce", metavar="FILE", help="write the address there once it serves")
    add("--with-parent", action="store_true", help="stop when the process that started this one is gone")
    serving.add_security_options(serve)
    add("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    times = serve.add_argument_group("times, in seconds")
    defaults = Config()
    for name, value, text in (
        ("--ttl", defaults.default_ttl_ms, "a lease not renewed for so long ends, unless its client asked for another"),
        ("--resume-grace", defaults.resume_grace_ms, "a client whose connection broke keeps its lease for so long"),
        ("--heartbeat", defaults.heartbeat_interval_ms, "how often agents say that they live"),
        ("--dead-after", defaults.dead_after_ms, "a silent agent's leases are lost after so long"),
        ("--reattach", defaults.reattach_ms, "the same for an agent whose connection broke"),
        ("--restart-grace", defaults.restart_grace_ms, "the same after the tracker itself was away"),
        ("--start-timeout", defaults.start_timeout_ms, "a worker not ready after so long is given up"),
    ):
        times.add_argument(name, type=float, default=value / 1000, metavar="S", help=f"{text} (default %(default)g)")
    return parser


if __name__ == "__main__":
    run_program(main)
