"""``python -m compiler_service serve``: builds IRModules for whoever asks, and keeps the artifacts."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from compiler_service.service import NAME, CompilerService, Settings
from compiler_service.workers import Limits
from crossfarm.errors import Error
from crossfarm.wire import serving
from crossfarm.wire.channels import listen, new_server
from crossfarm.wire.ending import run_program
from crossfarm.wire.v1 import compiler_pb2_grpc

_THREADS = 128


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and serves; the exit code."""
    options = _parser().parse_args(argv)
    serving.log_to_stderr()
    try:
        _serve(options)
    except Error as failure:
        print(f"compiler_service: {failure}", file=sys.stderr)
        return failure.exit_code
    return 0


def _serve(options: argparse.Namespace) -> None:
    stop = serving.StopSignal(with_parent=options.with_parent)
    stop.install()
    service = CompilerService(
        Settings(
            directory=options.store,
            workers=options.workers,
            limits=Limits(seconds=options.build_seconds, memory_bytes=options.memory_mib << 20),
            max_store_bytes=options.store_mib << 20 if options.store_mib else None,
        )
    )
    try:
        server = new_server(threads=_THREADS, name="compiler")
        compiler_pb2_grpc.add_CompilerServicer_to_server(service, server)
        serving.add_standard_services(server, [NAME])
        address = listen(server, options.listen, serving.security_of(options))
        serving.announce(options.announce, "compiler", address)
        serving.serve_until_stopped(server, stop, on_stop=service.close)
    finally:
        service.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m compiler_service", description=__doc__)
    serve = parser.add_subparsers(dest="command", required=True).add_parser("serve", help="serve until stopped")
    add = serve.add_argument
    add("--listen", default="127.0.0.1:7462", metavar="HOST:PORT", help="address; port 0 picks one (%(default)s)")
    add("--store", type=Path, required=True, metavar="DIR", help="artifacts and build cache; created if missing")
    add("--announce", metavar="FILE", help="write the address there as JSON instead of printing it")
    add("--with-parent", action="store_true", help="stop when the process that started this one is gone")
    add("--workers", type=_positive, default=os.cpu_count() or 1, metavar="N", help="builds at once (%(default)s)")
    add("--build-seconds", type=float, default=Limits.seconds, metavar="S", help="time limit of a build (%(default)g)")
    add("--memory-mib", type=_positive, default=Limits.memory_bytes >> 20, metavar="MIB", help="memory of one build")
    add("--store-mib", type=_positive, metavar="MIB", help="most that the store may hold; no limit by default")
    serving.add_security_options(serve)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    run_program(main)
