"""What a worker's end is called: the program's fault and the farm's are never mixed up."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from crossfarm import errors
from crossfarm.wire.status import from_detail
from crossfarm.wire.v1.tracker_pb2 import Outcome
from device_agent.exits import WorkerExit, classify, oom_kills


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT"])
def test_a_fault_signal_is_the_programs_crash_and_is_named(name: str) -> None:
    outcome = classify(WorkerExit(-signal.Signals[name]), "board/cpu0")
    error = from_detail(outcome.error)
    assert outcome.kind == Outcome.PROGRAM_FAILED
    assert isinstance(error, errors.RemoteCrash)
    assert name in error.message
    assert "board/cpu0" in error.message
    assert error.hint


def test_a_kill_while_memory_ran_out_is_the_programs_crash() -> None:
    outcome = classify(WorkerExit(-signal.SIGKILL, oom_kills=1), "board/cpu0")
    assert isinstance(from_detail(outcome.error), errors.RemoteCrash)
    assert "out of memory" in outcome.error.message


def test_a_kill_from_outside_is_worth_retrying() -> None:
    error = from_detail(classify(WorkerExit(-signal.SIGKILL), "board/cpu0").error)
    assert isinstance(error, errors.LeaseLost)
    assert error.retryable


def test_a_fault_before_any_program_was_loaded_is_the_farms() -> None:
    outcome = classify(WorkerExit(-signal.SIGSEGV, program_ran=False), "board/cpu0")
    assert outcome.kind == Outcome.INFRASTRUCTURE_FAILED


def test_an_exit_that_nobody_asked_for_shows_the_end_of_the_log() -> None:
    outcome = classify(WorkerExit(1, log="x" * 5000 + "ImportError: no driver"), "board/cpu0")
    assert outcome.kind == Outcome.INFRASTRUCTURE_FAILED
    assert "ImportError: no driver" in outcome.error.message
    assert len(outcome.error.message) < 2500


def test_the_kernels_count_of_memory_kills_is_read(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 12\noom_kill 7\n")
    assert oom_kills(vmstat) == 7
    assert oom_kills(tmp_path / "absent") == 0
