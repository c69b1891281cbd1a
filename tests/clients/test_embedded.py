"""The private farm: nothing configured, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import crossfarm as cf
from clients.sdk import embedded, processes
from clients.sdk.farm import parse_size
from tests.clients import programs
from tests.clients.conftest import comes_back

#: Opens a farm, leases its device, says which processes run, and waits to be killed.
CLIENT = """
import sys
import psutil
import crossfarm as cf
farm = cf.connect()
device = farm.acquire()
print(farm.embedded.directory)
print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
sys.stdin.read()
"""


def gone(pids: list[int], timeout: float = 15) -> bool:
    deadline = time.monotonic() + timeout
    while any(map(running, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(running, pids))


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_main_job_needs_no_configuration_and_leaves_nothing() -> None:
    mod = cf.parse(programs.ADD)
    a, b = np.arange(8, dtype=np.float32), np.ones(8, np.float32)
    with cf.connect() as farm:
        assert farm.embedded is not None
        directory, pids = farm.embedded.directory, list(farm.embedded.pids.values())
        artifact = farm.build(mod, target="llvm")
        with farm.acquire("kind=cpu") as device:
            assert device.target.kind == "llvm"
            main = device.load(artifact)["main"]
            np.testing.assert_array_equal(main(a, b), a + b)
            assert main.benchmark(a, b, repeat=3, min_repeat_ms=0).median > 0
        assert comes_back(farm)
    assert not directory.exists()
    assert not any(map(running, pids))


def test_one_artifact_carries_a_variant_for_each_target() -> None:
    with cf.connect() as farm:
        artifact = farm.build(cf.parse(programs.ADD), target=["x86-64-v3", {"kind": "llvm", "arch": "aarch64"}])
        assert [variant.requires.arch for variant in artifact.variants] == ["x86_64", "aarch64"]
        assert farm.put(artifact) == artifact.digest
        assert farm.compiler.fetch(artifact.digest) == artifact
        assert set(farm.capabilities()) == {"tracker", "compiler"}
        with farm.acquire() as device:
            assert "main" in device.load(artifact)


def test_what_was_built_once_is_found_by_the_next_farm() -> None:
    mod = cf.parse(programs.ADD.replace("T.Buffer((8,)", "T.Buffer((9,)").replace("8", "9"))
    cached = []
    for _ in range(2):
        with cf.connect() as farm:
            cached.append(farm.compiler.build(mod, [cf.Target("llvm")]).cached)
    assert cached == [False, True]


def test_closing_releases_what_is_still_held_and_again_is_nothing() -> None:
    farm = cf.connect()
    device = farm.acquire()
    farm.close()
    farm.close()
    device.close()
    with pytest.raises(cf.Error):
        device.tensor(np.zeros(3, np.float32)).numpy()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_client_leaves_no_process_and_its_state_goes_with_the_next_farm(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        directory = Path(client.stdout.readline().strip())
        pids = [int(pid) for pid in client.stdout.readline().split()]
        assert len(pids) >= 4  # three programs and a worker
        client.send_signal(number)
    assert gone(pids)
    cf.connect().close()
    assert not directory.exists()


def test_a_client_that_forgets_to_close_leaves_nothing() -> None:
    script = CLIENT.replace("sys.stdin.read()", "")
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    directory, pids = ran.stdout.splitlines()
    assert not any(map(running, map(int, pids.split())))
    assert not Path(directory).exists()


def test_a_program_that_does_not_start_is_reported_with_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(cf.InfrastructureError, match="agent ended as it started") as caught:
        cf.connect("embedded", embedded_devices="abacus")
    assert "abacus" in caught.value.message
    assert not list(Path(embedded._base_directory()).glob(f"farm-*/{os.getpid()}"))


def test_an_unstartable_program_takes_the_others_with_it(tmp_path: Path) -> None:
    sleeper = processes.Program("sleeper", (sys.executable, "-c", "import time; time.sleep(60)"))
    with pytest.raises(cf.InfrastructureError, match="cannot start the missing"):
        processes.start_all([sleeper, processes.Program("missing", ("/nowhere/program",))], tmp_path)
    assert not psutil.Process().children()


def test_a_reserved_port_is_the_programs_alone() -> None:
    import socket

    reservation = processes.PortReservation("127.0.0.1:0")
    port = int(reservation.address.rpartition(":")[2])
    with socket.socket() as program:
        program.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        program.bind(("127.0.0.1", port))
        program.listen()
        reservation.release()
        with pytest.raises(cf.UsageError, match=str(port)):
            processes.PortReservation(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("text", "count"), [("5", 5), (7, 7), ("2KiB", 2048), ("2k", 2000), ("3 MB", 3_000_000), ("1GiB", 1 << 30)]
)
def test_sizes_have_the_units_of_selectors(text: str | int, count: int) -> None:
    assert parse_size(text) == count


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(cf.ArgumentError, match="not a size"):
        parse_size("a lot")
