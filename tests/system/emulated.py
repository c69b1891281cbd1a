"""A farm with an aarch64 agent under user-mode emulation."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import crossfarm as cf
from clients.sdk import Farm
from tests.conftest import ROOT
from tools import arm64_root

#: The emulated Python imports numpy and gRPC first.
START_SECONDS = 90


@contextmanager
def emulated_farm(scratch: Path, *, devices: str = "cpu", start_seconds: float = START_SECONDS) -> Iterator[Farm]:
    """A farm with an emulated agent that offers ``devices``, beside this machine's own.

    Skips the test (never in CI) where the arm64 root is not made.
    """
    if not arm64_root.is_complete() and not os.environ.get("CI"):
        pytest.skip("no arm64 root: run `make arm64-root`")
    announcement = scratch / "agent.json"
    with cf.connect("embedded") as farm, (scratch / "log").open("w") as log:
        command = [sys.executable, str(ROOT / "tools" / "arm64_root.py"), "agent", "--", "--tracker", farm.address]
        command += ["--name", "emulated", "--devices", devices, "--announce", str(announcement), "--with-parent"]
        with subprocess.Popen([*command, "--state", str(scratch / "state")], stderr=log, stdout=log) as agent:
            try:
                deadline = time.monotonic() + start_seconds
                while not announcement.exists():
                    assert agent.poll() is None, (scratch / "log").read_text()
                    assert time.monotonic() < deadline, "the emulated agent did not start in time"
                    time.sleep(0.05)
                farm.targets(), farm.devices()  # its connections are open, and no test's own
                yield farm
            finally:
                agent.terminate()
