"""The farm of ``crossfarm up``: found by everybody, restarted where it dies, gone when told to."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import crossfarm as cf
from clients.sdk import places, runfile, supervised
from clients.sdk.farm import DeviceInfo
from clients.sdk.processes import Child, Program
from crossfarm.wire.serving import StopSignal
from tests.clients import programs
from tests.clients.conftest import Crossfarm

PROGRAMS = {"tracker": "tracker", "compiler": "compiler_service", "agent": "device_agent"}


@pytest.fixture(scope="module")
def up(own_places: Path) -> Iterator[runfile.RunningFarm]:
    """A farm that stays, until the module's tests are over."""
    command = [sys.executable, "-m", "clients.cli.main"]
    started = subprocess.run([*command, "up", "--detach", "--json"], capture_output=True, text=True, check=True)
    running = runfile.read()
    assert running is not None
    assert json.loads(started.stdout)["tracker"] == running.tracker
    yield running
    subprocess.run([*command, "down"], capture_output=True, check=True)
    assert runfile.read() is None
    assert not psutil.pid_exists(running.pid)


def program(running: runfile.RunningFarm, module: str) -> psutil.Process:
    """The process of one of the farm's programs; waits until there is one."""

    def find() -> psutil.Process | None:
        for child in psutil.Process(running.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                if child.status() != psutil.STATUS_ZOMBIE and module in child.cmdline():
                    return child
        return None

    found: psutil.Process = until(find)
    return found


def until(condition: Callable[[], Any], timeout: float = 30) -> Any:
    """What ``condition`` gives once it gives something."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)
    return found


def main_job() -> None:
    """Builds, leases and runs on the farm that is found without an address."""
    with cf.connect() as farm:
        assert farm.embedded is None
        artifact = farm.build(cf.parse(programs.ADD))
        with farm.acquire("kind=cpu", timeout=30) as device:
            assert "main" in device.load(artifact)


def test_everybody_finds_the_farm(up: runfile.RunningFarm, crossfarm: Crossfarm) -> None:
    main_job()
    assert json.loads(crossfarm("devices", "--json").stdout)["devices"][0]["state"] == "free"


def test_a_second_one_says_that_one_runs(up: runfile.RunningFarm, crossfarm: Crossfarm) -> None:
    for arguments in (("up",), ("up", "--detach")):
        ran = crossfarm(*arguments)
        assert ran.returncode == 2
        assert up.tracker in ran.stderr
        assert "crossfarm down" in ran.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_is_killed_comes_back_where_it_was(up: runfile.RunningFarm, name: str) -> None:
    before = program(up, PROGRAMS[name])
    before.kill()
    after = until(lambda: (found := program(up, PROGRAMS[name])).pid != before.pid and found)
    assert after.is_running()
    until(lambda: all(device.state == "free" for device in devices()) and devices())
    main_job()
    assert runfile.read() == up


def devices() -> list[DeviceInfo]:
    with cf.connect() as farm:
        return farm.devices()


def test_a_killed_supervisor_takes_its_farm_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crossfarm: Crossfarm
) -> None:
    monkeypatch.setenv("CROSSFARM_STATE", str(tmp_path / "state"))
    with foreground() as supervisor:
        running = until(runfile.read)
        pids = [child.pid for child in psutil.Process(running.pid).children(recursive=True)]
        supervisor.kill()
    until(lambda: not any(map(alive, pids)))
    assert runfile.read() is None
    assert crossfarm("down").returncode == 0  # nothing runs: nothing to do


def test_the_foreground_ends_with_an_interrupt_and_keeps_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSFARM_STATE", str(tmp_path / "state"))
    for _ in range(2):
        with foreground("--agent-devices", "cpu,null") as supervisor:
            running = until(runfile.read)
            with cf.connect() as farm:
                assert {device.kind for device in farm.devices()} == {"cpu", "null"}
            supervisor.send_signal(signal.SIGINT)
            _, err = supervisor.communicate(timeout=20)
        assert supervisor.returncode == 0, err
        assert running.tracker in err
        assert "Traceback" not in err
        assert not runfile.path().exists()
    assert (places.state_dir() / "farm" / "tracker-state").is_dir()


def test_a_program_that_keeps_dying_is_given_up_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised.RestartPolicy, "ended", lambda self: None)
    farm = supervised.SupervisedFarm()
    dying = Program("dying", (sys.executable, "-c", "import sys; sys.exit('no disk')"))
    farm._children = [Child(dying, tmp_path)]
    with pytest.raises(cf.InfrastructureError, match="no disk"):
        farm._watch(StopSignal())


def test_a_port_that_is_taken_is_a_usage_error(
    up: runfile.RunningFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crossfarm: Crossfarm
) -> None:
    monkeypatch.setenv("CROSSFARM_STATE", str(tmp_path / "state"))
    ran = crossfarm("up", "--listen", up.tracker)
    assert ran.returncode == 2
    assert f"cannot listen on {up.tracker}" in ran.stderr


def foreground(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "clients.cli.main", "up", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
