"""A farm for the tests of the clients: real programs, once for each module of tests, with caches of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clients.sdk.farm import Farm, connect

#: Runs the command line: arguments → the finished process, its output as text.
Crossfarm = Callable[..., "subprocess.CompletedProcess[str]"]

_OWN = ("CROSSFARM_TRACKER", "CROSSFARM_CONFIG", "CROSSFARM_STATE", "CROSSFARM_CACHE")


def comes_back(farm: Farm, *, within: float = 4.0) -> bool:
    """True once every device is free: a released one is, as soon as its agent has put the worker away."""
    deadline = time.monotonic() + within
    while any(device.state != "free" for device in farm.devices()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module", autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The person who runs the tests may have a farm and a configuration: no test sees or touches them."""
    base = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        for variable in _OWN:
            patch.setenv(variable, str(base / variable.removeprefix("CROSSFARM_").lower()))
        patch.delenv("CROSSFARM_TRACKER")
        yield base


@pytest.fixture(scope="module")
def farm(own_places: Path) -> Iterator[Farm]:
    """A private farm with a CPU."""
    with connect("embedded") as opened:
        opened.capabilities()  # its connections are its own, not those of the first test that uses them
        yield opened


@pytest.fixture
def crossfarm(tmp_path: Path) -> Crossfarm:
    """Runs ``crossfarm`` with arguments, in an empty directory."""

    def run(*arguments: object, farm: Farm | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "clients.cli.main", *map(str, arguments)]
        environment = dict(os.environ)
        if farm is not None:
            environment["CROSSFARM_TRACKER"] = farm.address
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run
