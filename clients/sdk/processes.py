"""The farm's programs as child processes: start several at once, hear where they listen, stop them without a trace.

Each child runs in a process group of its own (a Ctrl-C at the terminal is the client's to handle), writes to a log
file, announces itself in a file (see ``crossfarm.wire.serving``) and stops by itself when this process is gone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossfarm.errors import InfrastructureError, UsageError
from crossfarm.wire.channels import split_address
from crossfarm.wire.serving import PARENT_VARIABLE

_POLL_SECONDS = 0.01
#: A program that is told to stop lets open calls finish first; then it is killed.
STOP_SECONDS = 5.0
_LOG_TAIL_LINES = 15

#: Where the packages of the programs are, for children of a process that found them by its working directory.
_PACKAGES = str(Path(__file__).resolve().parents[2])


def package_environment() -> dict[str, str]:
    """The environment variables that let a child import what this process imports."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [_PACKAGES, os.environ.get("PYTHONPATH")]))}


class PortReservation:
    """A free port kept for a program that is about to start, so that others can be told of it before it listens.

    The socket is bound and never listens: with SO_REUSEADDR on both sides the program may bind the same port, while
    the system gives it to nobody else. Release it once the program announced itself.
    """

    def __init__(self, address: str) -> None:
        host, port = split_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as failure:
            self._socket.close()
            raise UsageError(
                f"cannot listen on {address}: {failure.strerror}", hint="is another program on that port?"
            ) from failure
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        self.address = f"{shown}:{self._socket.getsockname()[1]}"
        if sys.platform == "win32":  # there the two would not share; the port may be lost to another program
            self._socket.close()

    def release(self) -> None:
        self._socket.close()


@dataclass(frozen=True)
class Program:
    """How one of the farm's programs is started: ``name`` for people and file names, ``command`` as for exec."""

    name: str
    command: tuple[str, ...]

    @staticmethod
    def module(name: str, module: str, *arguments: str) -> Program:
        """``python -m module serve arguments…`` under this interpreter."""
        return Program(name, (sys.executable, "-m", module, "serve", *arguments))


class Child:
    """One running program.

    Attributes:
        program: what runs.
        log: the file that its output goes to.
        address: where it listens; "" until it announced itself, and for a program that only calls others.
    """

    def __init__(self, program: Program, directory: Path) -> None:
        """Starts ``program`` with its log and announcement under ``directory``, which must exist."""
        self.program = program
        self.log = directory / f"{program.name}.log"
        self.address = ""
        self._ready = False
        self._announcement = directory / f"{program.name}.address"
        self._announcement.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    [*program.command, "--announce", str(self._announcement), "--with-parent"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=directory,  # -m puts it on the module path: it must hold no packages
                    env={**os.environ, **package_environment(), PARENT_VARIABLE: str(os.getpid())},
                    start_new_session=True,
                )
            except OSError as failure:
                raise InfrastructureError(f"cannot start the {program.name}: {failure}") from failure

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_status(self) -> str:
        """How it ended, in words, such as "exit code 1" or "signal SIGKILL"."""
        code = self._process.poll()
        if code is None:
            return "running"
        return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    def announced(self) -> bool:
        """True once it is ready; ``address`` is set then. Raises InfrastructureError if it ended instead."""
        if not self._ready:
            ended = not self.running  # looked at first: what it announced before it ended is there already
            try:
                self.address = json.loads(self._announcement.read_text())["address"]
                self._ready = True
            except FileNotFoundError:
                if ended:
                    raise self.failure(f"the {self.program.name} ended as it started ({self.exit_status})") from None
        return self._ready

    def failure(self, message: str) -> InfrastructureError:
        """An error about this program with the end of its log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        except OSError:
            lines = []
        tail = "\n".join(f"  | {line}" for line in lines)
        return InfrastructureError(f"{message}; its log ends:\n{tail}" if tail else f"{message}; its log is empty")


def start_all(programs: Sequence[Program], directory: Path) -> list[Child]:
    """Starts ``programs`` side by side; if one cannot start, those that did are stopped."""
    children: list[Child] = []
    try:
        for program in programs:
            children.append(Child(program, directory))
    except BaseException:
        stop_all(children)
        raise
    return children


def wait_until_announced(children: Iterable[Child], timeout: float) -> None:
    """Returns when all are ready. Raises InfrastructureError, with the log, for one that ended or took too long."""
    deadline = time.monotonic() + timeout
    for child in children:
        while not child.announced():
            if time.monotonic() > deadline:
                raise child.failure(f"the {child.program.name} did not start within {timeout:g} s")
            time.sleep(_POLL_SECONDS)


def stop_all(children: Sequence[Child], *, grace: float = STOP_SECONDS) -> None:
    """Stops ``children``: asks all at once, kills those that have not gone after ``grace`` seconds, and what is left
    in their process groups. Returns when all are gone; again is nothing."""
    for child in children:
        child._process.terminate()
    deadline = time.monotonic() + grace
    for child in children:
        while not _ended(child) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        _kill_group(child)
        child._process.wait()


def _ended(child: Child) -> bool:
    """True when the process has ended, without reaping it where the system allows: until then its group is its own."""
    process = child._process
    if process.returncode is not None or not hasattr(os, "waitid"):
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return True


def _kill_group(child: Child) -> None:
    process = child._process
    if process.returncode is not None:
        return
    if not hasattr(os, "killpg"):
        process.kill()
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # gone; on macOS a group of zombies answers EPERM
        pass
