"""What every test gets: a check that it left nothing behind, and paths to shared data."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT.parent / "shared" / "corpus"

# A shell without job control starts what it puts into the background with SIGINT ignored, which is inherited down to
# the programs that tests interrupt, and which these respect.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Farms that tests start offer the CPU alone unless they say otherwise, whatever else the machine has.
os.environ["CROSSFARM_DEVICES"] = "cpu"

#: Threads that libraries keep for the life of the process; everything else must be gone after a test.
_LASTING_THREADS = ("grpc", "MainThread", "pytest_timeout", "ThreadPoolExecutor-hypothesis", "execnet")
#: How long what a test closed may take to be really gone.
_SETTLE_SECONDS = 5.0


def _children() -> set[int]:
    # execnet and the resource tracker of multiprocessing belong to the runner, not to a test
    found = set()
    for child in psutil.Process().children(recursive=True):
        try:
            if "resource_tracker" not in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.add(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def _belongs_to(pid: int, older: set[int]) -> bool:
    """True for a process that one of ``older`` started, such as the next warm worker of a fixture's agent."""
    try:
        return any(parent.pid in older for parent in psutil.Process(pid).parents())
    except psutil.NoSuchProcess:
        return True


def _threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if not t.name.startswith(_LASTING_THREADS) and "polling" not in t.name}


def _sockets() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            link = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if link.startswith("socket:"):
            found.add(link)
    return found


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a child process, a thread or a socket. Fixtures of wider scope are older than it."""
    before = _children(), _threads(), _sockets()
    yield
    deadline = time.monotonic() + _SETTLE_SECONDS
    left: list[object] = []
    while time.monotonic() < deadline:
        left = [
            *(f"process {pid}" for pid in _children() - before[0] if not _belongs_to(pid, before[0])),
            *(f"thread {t.name}" for t in _threads() - before[1]),
            *(f"{s}" for s in _sockets() - before[2]),
        ]
        if not left:
            return
        time.sleep(0.02)
    pytest.fail(f"left behind: {', '.join(map(str, left))}")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The corpus of TVM's printed programs; skips (never in CI) where it is absent."""
    if not (CORPUS / "index.json").exists():
        if os.environ.get("CI"):
            pytest.fail(f"the corpus is missing at {CORPUS}")
        pytest.skip(f"no corpus at {CORPUS}")
    return CORPUS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files to what is printed now")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """True when golden files are to be rewritten instead of compared."""
    return bool(request.config.getoption("--update-golden"))
