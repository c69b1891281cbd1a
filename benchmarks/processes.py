"""Child processes and ports of a benchmark run."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
#: The loopback address behind the slow link; 127.0.0.1 is the same port without it.
NEAR, FAR = "127.0.0.1", "127.0.0.2"


@contextmanager
def child(
    command: list[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes on its standard input and output, stderr in ``log``; its environment is this one's if none
    is given.

    When the block ends it is gone with all that it started: TVM's tracker and server are themselves children of the
    commands that start them, and stay when those are killed.
    """
    with (
        log.open("a") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=REPOSITORY,
            env=environment,
        ) as process,
    ):
        try:
            yield process
        finally:
            tree = _tree(process.pid)
            for member in tree:
                try:
                    member.terminate()
                except psutil.NoSuchProcess:
                    pass
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def free_ports(count: int) -> int:
    """The first of ``count`` consecutive ports that are free on both addresses just now."""
    for _ in range(200):
        low = random.randrange(20_000, 32_000)
        if all(_is_free(host, port) for port in range(low, low + count) for host in (NEAR, FAR)):
            return low
    raise RuntimeError(f"no {count} consecutive free ports found")


def wait_for_port(port: int, *, seconds: float = 30) -> None:
    """Returns when something listens on 127.0.0.1:``port``. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection((NEAR, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port} after {seconds} s")


@contextmanager
def slow_link(ports: list[int], *, rtt_ms: float, mbit: float, python: str, log: Path) -> Iterator[None]:
    """Carries 127.0.0.2:P to 127.0.0.1:P over a slow link, for each P of ``ports``."""
    command = [python, "-m", "benchmarks.link", "--rtt-ms", str(rtt_ms), "--mbit", str(mbit)]
    for port in ports:
        command += ["--forward", f"{FAR}:{port}={NEAR}:{port}"]
    with child(command, log=log) as process:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the link did not start: see {log}")
        yield


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return []


def _is_free(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True
