"""How every program of the farm runs: announce the address, serve until told to stop, stop in order.

A program started by another one is told ``--announce FILE``: when it is ready it writes one JSON object there,
atomically: ``{"service": "tracker", "address": "127.0.0.1:40123", "pid": 4711}``. It stops on SIGTERM or SIGINT, and
with ``--with-parent`` also when the process that started it is gone, so that no kill leaves an orphan.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError

from crossfarm import _version
from crossfarm.compat import versions
from crossfarm.errors import InfrastructureError, UsageError
from crossfarm.wire.channels import Security
from crossfarm.wire.ending import Signalled
from crossfarm.wire.v1.capabilities_pb2 import Capabilities

_PARENT_POLL_SECONDS = 0.5

#: Environment variable in which a process that starts a program with ``--with-parent`` gives its own process id.
PARENT_VARIABLE = "CROSSFARM_PARENT_PID"


def capabilities(service: str, features: list[str], limits: dict[str, int]) -> Capabilities:
    """What a service answers to GetCapabilities: version ranges, feature strings, limits by name."""
    return Capabilities(
        service=service,
        release=_version.__version__,
        api_low=versions.API_READABLE[0],
        api_high=versions.API_READABLE[1],
        ir=Capabilities.VersionRange(low=versions.IR_READABLE[0], high=versions.IR_READABLE[1]),
        artifact=Capabilities.VersionRange(low=versions.ARTIFACT_READABLE[0], high=versions.ARTIFACT_READABLE[1]),
        features=features,
        limits=limits,
    )


def check_api(service: str, low: int, high: int, *, doing: str) -> None:
    """Raises InfrastructureError naming both ranges when ``low..high`` and ours do not meet."""
    ours = versions.API_READABLE
    if low > ours[1] or high < ours[0]:
        raise InfrastructureError(
            f"{doing}: {service} speaks api_version {low} to {high}, this side {ours[0]} to {ours[1]}",
            hint="upgrade the older of the two",
        )


def log_to_stderr(level: int | str = logging.INFO) -> None:
    """Sets up a program's logging: one line an event on stderr, and none of gRPC's tracebacks for peers' garbage."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for name in ("grpc._common", "grpc._cython.cygrpc"):
        logging.getLogger(name).addFilter(_without_garbage)


def _without_garbage(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], DecodeError))


def add_security_options(parser: argparse.ArgumentParser) -> None:
    """The options of a server's TLS, the same for every program; ``security_of`` reads them."""
    add = parser.add_argument
    add("--insecure", action="store_true", help="allow plaintext beyond loopback")
    add("--tls-cert", metavar="PEM", help="certificate chain of this server")
    add("--tls-key", metavar="PEM", help="its private key")
    add("--tls-ca", metavar="PEM", help="authorities whose clients are accepted (mutual TLS)")


def security_of(options: argparse.Namespace) -> Security:
    """What ``add_security_options`` were given. Raises UsageError for a file that cannot be read, or half a pair."""

    def read(path: str | None) -> bytes | None:
        try:
            return Path(path).read_bytes() if path else None
        except OSError as failure:
            raise UsageError(
                f"cannot read {path}: {failure.strerror}", hint="check the path and its permissions"
            ) from failure

    if (options.tls_key is None) != (options.tls_cert is None):
        raise UsageError("--tls-key and --tls-cert go together", hint="give both, or neither")
    if options.tls_ca is not None and options.tls_key is None:
        raise UsageError(
            "--tls-ca says whose clients are accepted, but there is no TLS", hint="add --tls-cert and --tls-key"
        )
    return Security(
        root_certificates=read(options.tls_ca),
        certificate_chain=read(options.tls_cert),
        private_key=read(options.tls_key),
        insecure=options.insecure,
    )


def add_standard_services(server: grpc.Server, service_names: list[str]) -> None:
    """gRPC health checking and reflection, where their packages are installed (the ``server`` extra)."""
    try:
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc
        from grpc_reflection.v1alpha import reflection
    except ImportError:
        return
    servicer = health.HealthServicer()
    for name in ["", *service_names]:
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(
        [*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME],
        server,
    )


def announce(path: str | None, service: str, address: str) -> None:
    """Tells whoever started this process where it listens: one JSON object, to ``path`` or else to stdout."""
    text = json.dumps({"service": service, "address": address, "pid": os.getpid()})
    if path is None:
        print(text, flush=True)
        return
    scratch = Path(f"{path}.{os.getpid()}.tmp")
    scratch.write_text(text)
    os.replace(scratch, path)


class StopSignal:
    """Set by SIGTERM, SIGINT, the parent's death (``with_parent``), or by hand."""

    def __init__(self, *, with_parent: bool = False) -> None:
        self._event = Signalled()
        # the starter says who it is: it may be gone before this line, and getppid() would then name its heir
        starter = int(os.environ.pop(PARENT_VARIABLE, "0"))
        self._parent = (starter or os.getppid()) if with_parent else None

    def install(self) -> None:
        """Takes over SIGTERM and SIGINT; call from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._event.set())

    def set(self) -> None:
        self._event.set()

    def wait_for(self, seconds: float) -> bool:
        """Waits at most ``seconds``; True when it is time to stop."""
        if self._event.wait(seconds):
            return True
        return self._parent is not None and os.getppid() != self._parent

    def wait(self) -> None:
        """Returns when it is time to stop."""
        while not self._event.wait(_PARENT_POLL_SECONDS if self._parent else None):
            if self._parent is not None and os.getppid() != self._parent:
                print("the process that started this one is gone: stopping", file=sys.stderr)
                return


def serve_until_stopped(
    server: grpc.Server, stop: StopSignal, *, on_stop: Callable[[], None] | None = None, grace_seconds: float = 1.0
) -> None:
    """Starts ``server``, waits for ``stop``, runs ``on_stop``, then lets open calls finish for ``grace_seconds``."""
    server.start()
    try:
        stop.wait()
    finally:
        if on_stop is not None:
            on_stop()
        server.stop(grace_seconds).wait()
