"""Drivers are asked for their devices in a process of their own, and one that misbehaves costs no other."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from crossfarm.errors import UsageError
from device_agent import devices, drivers, probe

BAD = "PROBE_APART = True\ndef probe():\n    {body}\ndef open_device(index):\n    raise AssertionError\n"
MISBEHAVIOURS = {
    "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "raises": "raise RuntimeError('no driver for you')",
    "hangs": "import time; time.sleep(600)",
    "says_nonsense": "import os; os.write(3, b'x'); os._exit(0)",
}


@pytest.fixture
def bad_driver(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A driver in a package path of its own, which child processes have too."""
    name = f"bad_{request.param}"
    (tmp_path / f"{name}.py").write_text(BAD.format(body=MISBEHAVIOURS[request.param]))
    start = f"import device_agent.drivers as d; d.__path__.append({str(tmp_path)!r}); "
    start += "import sys; sys.argv = ['probe', *sys.argv[3:]]; from device_agent.probe import main; main()"
    monkeypatch.setattr(drivers, "__path__", [*drivers.__path__, str(tmp_path)])
    monkeypatch.setattr(probe, "python_command", lambda: [sys.executable, "-c", start])
    monkeypatch.setattr(probe, "PROBE_SECONDS", 5.0)
    yield name
    sys.modules.pop(f"device_agent.drivers.{name}", None)


@pytest.mark.parametrize("bad_driver", MISBEHAVIOURS, indirect=True)
def test_a_driver_that_misbehaves_when_it_is_asked_costs_its_own_devices(
    bad_driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = devices.find([bad_driver, "null"], agent="a", extra={}, host="127.0.0.1")
    assert [name for _, name, _ in found] == ["null"]
    assert bad_driver in caplog.text


def test_all_means_every_driver_of_real_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(devices, "probe", lambda name: asked.append(name) or probe.probe("null"))
    devices.find(["all"], agent="a", extra={}, host="127.0.0.1")
    assert set(asked) == set(drivers.names()) - {"null", "reference"}


def test_the_environment_narrows_what_an_agent_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFARM_DEVICES", "cpu,opencl")
    assert devices.default_drivers() == "cpu,opencl"
    monkeypatch.delenv("CROSSFARM_DEVICES")
    assert devices.default_drivers() == "all"


def test_an_unknown_driver_is_named() -> None:
    with pytest.raises(UsageError, match="there is no driver 'abacus'"):
        probe.probe("abacus")
