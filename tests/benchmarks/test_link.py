"""The slow link delays and limits as it says: what the benchmark's remote job stands on."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import FAR, child, free_ports, slow_link

RTT = 0.020
BYTES_PER_SECOND = 100e6 / 8

ECHO = """
import socket, sys, threading

def echo(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while chunk := connection.recv(65536):
            connection.sendall(chunk)

server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while True:
    threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()
"""


@pytest.fixture(scope="module")
def far_echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port on 127.0.0.2 that answers with what it gets, over a link of 20 ms and 100 Mbit/s."""
    log = tmp_path_factory.mktemp("link") / "log"
    port = free_ports(1)
    with child([sys.executable, "-c", ECHO, str(port)], log=log) as echo:
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        with slow_link([port], rtt_ms=RTT * 1000, mbit=100, python=sys.executable, log=log):
            yield port


def connect(port: int) -> socket.socket:
    connection = socket.create_connection((FAR, port), timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        chunk = connection.recv(65536)
        assert chunk, "the connection ended early"
        found += chunk
    return found


def test_an_answer_takes_the_round_trip_and_a_new_connection_one_more(far_echo: int) -> None:
    began = time.monotonic()
    with connect(far_echo) as connection:
        connection.sendall(b"x")
        receive(connection, 1)
        first = time.monotonic() - began
        times = []
        for _ in range(10):
            began = time.monotonic()
            connection.sendall(b"x")
            receive(connection, 1)
            times.append(time.monotonic() - began)
    assert first >= 2 * RTT
    assert min(times) >= RTT
    assert min(times) < 1.25 * RTT


def test_bytes_arrive_whole_and_no_faster_than_the_rate(far_echo: int) -> None:
    sent = bytes(range(256)) * 4000  # about 1 MB
    with connect(far_echo) as connection:
        began = time.monotonic()
        sender = threading.Thread(target=connection.sendall, args=(sent,))
        sender.start()
        assert receive(connection, len(sent)) == sent
        took = time.monotonic() - began
        sender.join()
    assert took >= len(sent) / BYTES_PER_SECOND


def test_two_connections_share_the_rate(far_echo: int) -> None:
    size = 500_000
    with connect(far_echo) as one, connect(far_echo) as other:
        began = time.monotonic()
        senders = [threading.Thread(target=c.sendall, args=(b"x" * size,)) for c in (one, other)]
        for sender in senders:
            sender.start()
        receive(one, size)
        receive(other, size)
        took = time.monotonic() - began
        for sender in senders:
            sender.join()
    assert took >= 2 * size / BYTES_PER_SECOND


def test_the_end_of_one_side_reaches_the_other(far_echo: int) -> None:
    with connect(far_echo) as connection:
        connection.sendall(b"x")
        connection.shutdown(socket.SHUT_WR)
        assert receive(connection, 1) == b"x"
        assert connection.recv(1) == b""


def test_nothing_that_a_child_started_outlives_it(tmp_path: Path) -> None:
    grandparent = (
        "import subprocess, sys, time; "
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True); time.sleep(60)"
    )
    with child([sys.executable, "-c", grandparent], log=tmp_path / "log") as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
    alive = subprocess.run(["ps", "-o", "stat=", "-p", str(grandchild)], capture_output=True, text=True).stdout.strip()
    assert alive in ("", "Z")
