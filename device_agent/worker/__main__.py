"""``python -m device_agent.worker``: opens one device, waits warm for a lease, serves its session, ends with it.

Started by the agent; ``device_agent/worker/control.py`` has the events and commands of the pipe between the two.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossfarm import errors
from crossfarm.artifact import Artifact, select_variant
from crossfarm.target import Target
from crossfarm.wire import channels
from crossfarm.wire.ending import run_program
from crossfarm.wire.tensors import STREAM_OPTIONS
from crossfarm.wire.v1.artifact_pb2 import Variant
from device_agent import drivers
from device_agent.drivers.base import Program
from device_agent.worker.artifacts import CONSTANT_CACHE_BYTES, Cache, Resolver
from device_agent.worker.control import EXIT_OK, EXIT_TIME_LIMIT, Control
from device_agent.worker.executor import Executor
from device_agent.worker.limits import Limits, Watchdog, confine_memory
from device_agent.worker.logs import LogRing
from device_agent.worker.service import Lease, SessionService

log = logging.getLogger("device_agent.worker")

#: Streams that may be open at once: the client's, its next one, and strangers who are about to be refused.
_THREADS = 16


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m device_agent.worker", description=__doc__)
    top.add_argument("--driver", required=True, help="which of device_agent/drivers")
    top.add_argument("--device-index", type=int, default=0, help="which of the driver's devices")
    top.add_argument("--device-json", default="{}", help="the device's id and attributes")
    top.add_argument("--state", type=Path, required=True, help="directory for caches")
    top.add_argument("--store", action="append", default=[], metavar="ADDR", help="a compiler service with artifacts")
    top.add_argument("--host", default="127.0.0.1", help="address to listen on")
    top.add_argument("--ports", default="", metavar="LOW-HIGH", help="range for the port (default: any)")
    return top


class Worker:
    """A warm worker, then a lease's. Raises on construction where the device cannot be opened."""

    def __init__(self, options: argparse.Namespace, control: Control, logs: LogRing) -> None:
        self._control = control
        self._logs = logs
        self._options = options
        self._name = str(json.loads(options.device_json).get("id") or options.driver)
        self._device = drivers.get(options.driver).open_device(options.device_index)
        # Asked of the system now, while nobody waits: the first load of a lease finds it ready.
        Target.from_proto(Target.detect().to_proto())
        self._service = SessionService(lambda connected: control.emit("client", connected=connected))
        self._server = channels.new_server(threads=_THREADS, name="session", extra_options=STREAM_OPTIONS)
        self._service.add_to(self._server)

    def start(self) -> None:
        """Listens and says so. Raises UsageError where it cannot."""
        address = _listen(self._server, self._options.host, self._options.ports)
        self._server.start()
        self._control.emit("ready", address=address)

    def command(self, name: str, fields: Mapping[str, Any]) -> None:
        """Carries out a supervisor's command."""
        if name == "bind":
            self._bind(fields)
        elif name == "end":
            os._exit(EXIT_OK)  # native code may be running: there is nobody to wait for
        else:
            log.warning("unknown command %r", name)

    def _bind(self, fields: Mapping[str, Any]) -> None:
        limits = Limits.of(fields.get("limits") or {})
        watchdog = Watchdog(self._overrun)
        state = self._options.state
        executor = Executor(
            self._device,
            load=self._load,
            artifacts=Resolver(Cache(state / "artifacts"), self._options.store),
            constants=Cache(state / "constants", CONSTANT_CACHE_BYTES),
            logs=self._logs,
            limits=limits,
            watchdog=watchdog,
        )
        watchdog.start()
        confine_memory(limits.memory_bytes)
        self._service.bind(Lease(str(fields["lease_id"]), str(fields["session_token"]), executor))
        self._control.emit("bound")

    def _load(self, data: bytes) -> tuple[Program, Variant, int]:
        artifact = Artifact.from_bytes(data, what="the artifact")
        reasons = []
        for capabilities in self._device.capabilities:
            try:
                variant = select_variant(artifact, capabilities)
            except errors.IncompatibleArtifact as failure:
                reasons.append(failure)
                continue
            self._control.emit("loaded", artifact=artifact.digest)
            index = next(i for i, v in enumerate(artifact.variants) if v is variant or v == variant)
            return self._device.load(artifact, variant), variant, index
        raise reasons[0]

    def _overrun(self, limit: float, what: str) -> None:
        """Ends this process: told first, so that everybody learns why."""
        self._control.emit(
            "outcome",
            kind="PROGRAM_FAILED",
            type="Timeout",
            message=f"{what} on {self._name} ran longer than its limit of {limit:g} s",
            hint="give the call more time (timeout=), or look for a loop that does not end",
        )
        os._exit(EXIT_TIME_LIMIT)


def _listen(server: Any, host: str, ports: str) -> str:
    """Binds the first free port of the range and returns the address."""
    # An agent that listens beyond loopback was told so by its operator: the check is the agent's.
    security = channels.Security(insecure=True)
    if not ports:
        return channels.listen(server, f"{host}:0", security)
    low, _, high = ports.partition("-")
    for port in range(int(low), int(high or low) + 1):
        try:
            return channels.listen(server, f"{host}:{port}", security)
        except errors.UsageError:
            continue
    raise errors.UsageError(f"no port of {ports} is free on {host}", hint="give the agent a wider range: --ports")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    control = Control()
    logs = LogRing()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger().addHandler(logs)
    options = parser().parse_args(arguments)
    try:
        worker = Worker(options, control, logs)
        worker.start()
    except errors.Error as failure:
        print(f"device_agent.worker: {failure}", file=sys.stderr)
        return failure.exit_code
    logs.capture_stdout()
    control.listen(worker.command)
    sys.stderr.flush()
    os._exit(EXIT_OK)  # the supervisor is gone


if __name__ == "__main__":
    run_program(main)
