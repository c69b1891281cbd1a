"""A process that used gRPC ends, whatever its threads do, and hears a signal whatever it was doing then."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from crossfarm.wire.ending import Signalled


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="no interval timers there")
def test_a_signal_may_come_at_any_moment_of_a_wait() -> None:
    storm = (
        "import signal\n"
        "from crossfarm.wire.ending import Signalled\n"
        "signals = 0\n"
        "def handle(*_):\n"
        "    global signals\n"
        "    signals += 1\n"
        "    event.set()\n"
        "event = Signalled()\n"
        "signal.signal(signal.SIGALRM, handle)\n"
        "signal.setitimer(signal.ITIMER_REAL, 2e-5, 2e-5)\n"
        "while signals < 20000:\n"
        "    event = Signalled()\n"
        "    event.wait(1e-5)\n"
        "print('heard')\n"
    )
    ended = run(storm)
    assert ended.stdout == "heard\n", ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no signals between threads there")
def test_a_signal_that_no_wait_was_woken_by_is_heard_all_the_same() -> None:
    """Another thread of the process takes it, as may happen to one that comes just before the wait begins."""
    deaf = (
        "import inspect, os, signal, sys, threading\n"
        "from crossfarm.wire.ending import Signalled\n"
        "event = Signalled()\n"
        "main = threading.main_thread()\n"
        "signal.signal(signal.SIGTERM, lambda *_: event.set())\n"
        "lines, first = inspect.getsourcelines(Signalled.wait)\n"
        "getting = first + next(i for i, line in enumerate(lines) if '_queue.get(' in line)\n"
        "def state():\n"  # Linux tells when a thread sleeps; elsewhere the line it is at has to do
        "    status = f'/proc/self/task/{main.native_id}/status'\n"
        "    if not os.path.exists(status): return []\n"
        "    kept = ('State', 'voluntary_ctxt_switches')\n"
        "    return [line for line in open(status) if line.startswith(kept)]\n"
        "def waits():\n"  # one that waits for the interpreter instead is switched to at each of these reads
        "    frame = sys._current_frames()[main.ident]\n"
        "    if (frame.f_code.co_name, frame.f_lineno) != ('wait', getting): return False\n"
        "    seen = [state() for _ in range(1000)]\n"
        "    return all(one == seen[0] for one in seen) and 'running' not in str(seen[0])\n"
        "def elsewhere():\n"
        "    while not waits(): pass\n"
        "    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)\n"
        "threading.Thread(target=elsewhere, daemon=True).start()\n"
        "event.wait()\n"
        "print('heard')\n"
    )
    started = time.monotonic()
    ended = run(f"{deaf}import os, sys; sys.stdout.flush(); os._exit(0)")
    assert ended.stdout == "heard\n", ended.stderr
    assert time.monotonic() - started < 15


def test_what_was_set_stays_set() -> None:
    event = Signalled()
    assert not event.wait(0)
    event.set()
    assert event.wait()
    assert event.wait()


def test_a_thread_that_never_ends_does_not_keep_the_process() -> None:
    stuck = (
        "import atexit, threading\n"
        "from crossfarm.wire.ending import end_process\n"
        "atexit.register(lambda: print('put away', end=''))\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "end_process(3)\n"
    )
    ended = run(stuck)
    assert (ended.returncode, ended.stdout) == (3, "put away")


def test_an_exit_function_that_never_ends_does_not_keep_the_process() -> None:
    stuck = (
        "import atexit, threading\n"
        "from crossfarm.wire import ending\n"
        "ending._EXIT_FUNCTIONS_SECONDS = 0.2\n"
        "atexit.register(threading.Event().wait)\n"
        "ending.end_process(4)\n"
    )
    assert run(stuck).returncode == 4


@pytest.mark.parametrize(
    ("leaving", "status", "said"),
    [
        ("return 7", 7, ""),
        ("raise SystemExit(143)", 143, ""),
        ("raise SystemExit", 0, ""),
        ("sys.exit('no such thing')", 1, "no such thing"),
        ("raise KeyboardInterrupt", 130, ""),
        ("raise ValueError('unforeseen')", 1, "ValueError: unforeseen"),
    ],
)
def test_a_program_ends_the_same_way_however_its_main_function_is_left(leaving: str, status: int, said: str) -> None:
    program = (
        "import sys, threading\n"
        "from crossfarm.wire.ending import run_program\n"
        "class Stuck:\n"  # the interpreter's own ending would meet it
        "    def __del__(self): threading.Event().wait()\n"
        "stuck = Stuck()\n"
        f"def main(): {leaving}\n"
        "run_program(main)\n"
    )
    ended = run(program)
    assert ended.returncode == status, ended.stderr
    assert said in ended.stderr


def test_a_signal_while_the_process_ends_changes_nothing() -> None:
    interrupted = (
        "import atexit, signal\n"
        "from crossfarm.wire.ending import run_program\n"
        "atexit.register(lambda: signal.raise_signal(signal.SIGINT))\n"
        "run_program(lambda: 5)\n"
    )
    assert run(interrupted).returncode == 5
