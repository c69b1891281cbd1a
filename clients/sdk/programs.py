"""What makes a farm on one machine: a tracker, a compiler service and an agent, with ports known before they start.

Knowing the ports first lets the three start side by side, and lets one that died come back where the others look.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from clients.sdk.processes import PortReservation, Program
from crossfarm.wire.channels import split_address

#: Hosts that stand for every address of this machine, and what this machine itself calls there.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


@dataclass(frozen=True)
class LocalFarm:
    """One machine's farm, as a plan.

    Attributes:
        tracker, compiler: where they will listen, reserved until ``release_ports``.
        programs: how to start them.
    """

    tracker: str
    compiler: str
    programs: tuple[Program, ...]
    _reservations: tuple[PortReservation, ...]

    @staticmethod
    def plan(
        state: Path,
        store: Path,
        *,
        listen: str = "127.0.0.1:0",
        compiler_listen: str = "",
        devices: str = "",
        agent_name: str = "",
        insecure: bool = False,
        advertise: str = "",
    ) -> LocalFarm:
        """Reserves the ports and writes down the commands.

        Args:
            state: directory for the state of the tracker and the agent; created.
            store: directory of the artifact store; created. Several farms may share it.
            listen: the tracker's host:port, port 0 for any free one.
            compiler_listen: the compiler's, by default any free port of the tracker's host.
            devices: drivers that the agent offers, separated by commas; "" for its default.
            agent_name: unique in the farm, the host's name by default.
            insecure: allow plaintext beyond loopback.
            advertise: the name by which other machines call this one, where ``listen`` is every address of it; by
                default the host's.
        Raises:
            UsageError: a port is taken, or an address is none.
        """
        host = listen.rpartition(":")[0]
        everywhere = split_address(listen)[0] in _EVERYWHERE
        called = (advertise or socket.gethostname()) if everywhere else host
        tracker = PortReservation(listen)
        try:
            compiler = PortReservation(compiler_listen or f"{host}:0")
        except BaseException:
            tracker.release()
            raise
        for directory in (state / "tracker-state", state / "agent-state", store):
            directory.mkdir(parents=True, exist_ok=True)
        extra = ["--insecure"] if insecure else []
        name = ["--name", agent_name] if agent_name else []
        programs = (
            Program.module(
                "tracker", "tracker", "--listen", tracker.address, "--state", str(state / "tracker-state"),
                "--compiler", f"{called}:{split_address(compiler.address)[1]}", *extra,
            ),
            Program.module("compiler", "compiler_service", "--listen", compiler.address, "--store", str(store), *extra),
            Program.module(
                "agent", "device_agent", "--tracker", _callable(tracker.address), "--state", str(state / "agent-state"),
                "--host", split_address(listen)[0], *(["--devices", devices] if devices else []), *name, *extra,
                *(["--advertise", called] if everywhere else []),
            ),
        )  # fmt: skip
        return LocalFarm(_callable(tracker.address), _callable(compiler.address), programs, (tracker, compiler))

    def release_ports(self) -> None:
        """The programs listen now, or never will."""
        for reservation in self._reservations:
            reservation.release()


def _callable(address: str) -> str:
    """The address under which this machine calls a service that listens on ``address``."""
    host, port = split_address(address)
    return f"{_EVERYWHERE[host]}:{port}" if host in _EVERYWHERE else address


def user_name() -> str:
    """Who runs this process, for names of files and for people; never fails."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no such user in the password database, as in many containers
        return str(os.getuid()) if hasattr(os, "getuid") else "user"
