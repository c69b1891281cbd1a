"""What a build can do to the service: fail. Crash, hang, memory and cancellation cost that build and nothing else.

A suspended worker stands for one that hangs: the build is given to it, and it does not answer.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import grpc
import psutil
import pytest

from crossfarm.errors import BuildFailed, Cancelled, Error, ResourceExhausted
from crossfarm.wire.status import error_of
from crossfarm.wire.v1.compiler_pb2 import BuildEvent
from tests.compiler_service.conftest import Service, add, done, large


class Asked(threading.Thread):
    """A build asked for in the background: its events so far, and how it ended."""

    def __init__(self, call: grpc.UnaryStreamCall) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.events: list[BuildEvent] = []
        self.error: Error | None = None
        self._changed = threading.Condition()
        self.start()

    def run(self) -> None:
        try:
            for event in self.call:
                with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
        except grpc.RpcError as failure:
            self.error = error_of(failure)

    def wait_for(self, kind: str, step: str = "") -> BuildEvent:
        """The first event of this kind (and step)."""

        def first() -> BuildEvent | None:
            return next((e for e in self.events if e.WhichOneof("event") == kind and step in ("", e.step.name)), None)

        with self._changed:
            assert self._changed.wait_for(first, 60), "the build told nothing"
        found = first()
        assert found is not None
        return found

    def end(self) -> None:
        self.join(60)
        assert not self.is_alive(), "the build did not end"


def _hang(service: Service) -> psutil.Process:
    """The only worker, warm and suspended."""
    service.build(add(0.5), no_cache=True)
    (worker,) = service.workers()
    worker.suspend()
    return worker


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS])
def test_a_worker_that_dies_fails_its_build_and_nothing_else(start: Callable[..., Service], number: int) -> None:
    service = start("--workers", "1")
    struck = Asked(service.start_build(large(3000)))
    struck.wait_for("step", "verify")
    waiting = Asked(service.start_build(add(2.0)))
    waiting.wait_for("queued")
    (worker,) = service.workers()
    worker.send_signal(number)
    struck.end()
    waiting.end()
    assert isinstance(struck.error, BuildFailed)
    assert f"the compiler crashed ({signal.Signals(number).name}) in step" in struck.error.message
    assert "report it" in struck.error.hint
    assert done(waiting.events)
    assert done(service.build(add(3.0)))


def test_a_build_past_its_time_limit_fails_naming_the_limit(start: Callable[..., Service]) -> None:
    service = start("--workers", "1")
    worker = _hang(service)
    module = large(2000)  # more than a pipe holds, so that sending it hangs too
    with pytest.raises(BuildFailed, match=r"longer than its limit of 0\.3 s, in step") as failure:
        service.build(module, timeout_ms=300)
    assert failure.value.details["limit"] == "time"
    assert not psutil.pid_exists(worker.pid)
    assert done(service.build(add(1.0)))


def test_another_client_with_more_time_does_not_share_the_limit_of_the_first(start: Callable[..., Service]) -> None:
    service = start("--workers", "1")
    _hang(service)
    hasty = Asked(service.start_build(add(1.0), timeout_ms=500))
    hasty.wait_for("step", "start")
    patient = Asked(service.start_build(add(1.0)))
    patient.wait_for("queued")
    hasty.end()
    patient.end()
    assert isinstance(hasty.error, BuildFailed)
    assert done(patient.events)


def test_a_worker_killed_from_outside_is_replaced_and_its_build_begins_anew(start: Callable[..., Service]) -> None:
    service = start("--workers", "1")
    asked = Asked(service.start_build(large(3000)))
    asked.wait_for("step", "verify")
    (worker,) = service.workers()
    worker.kill()
    asked.end()
    assert done(asked.events)


def test_one_variant_that_fails_ends_the_others(start: Callable[..., Service]) -> None:
    service = start("--workers", "2")
    service.build(add(0.5), "any-cpu", no_cache=True)
    first, second = service.workers()
    first.suspend()
    asked = Asked(service.start_build(large(3000), "any-cpu"))
    asked.wait_for("step", "verify")
    second.send_signal(signal.SIGABRT)
    asked.end()
    assert isinstance(asked.error, BuildFailed)
    assert "crashed (SIGABRT)" in asked.error.message
    assert not psutil.pid_exists(first.pid)


def test_the_services_own_time_limit_holds_where_the_client_asks_for_more(start: Callable[..., Service]) -> None:
    service = start("--workers", "1", "--build-seconds", "0.5")
    _hang(service)
    with pytest.raises(BuildFailed, match=r"limit of 0\.5 s"):
        service.build(add(1.0), timeout_ms=60_000)


def test_a_build_past_its_memory_limit_fails_naming_the_limit(start: Callable[..., Service]) -> None:
    service = start("--workers", "1", "--memory-mib", "4")
    with pytest.raises(BuildFailed, match="limit of 4 MiB of memory") as failure:
        service.build(large(5000))
    assert failure.value.details["limit"] == "memory"
    assert "--memory-mib" in failure.value.hint
    assert service.process.poll() is None


def test_a_full_disk_fails_the_build_as_worth_retrying_and_nothing_else(start: Callable[..., Service]) -> None:
    service = start("--workers", "1")
    process = psutil.Process(service.process.pid)
    unlimited = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (1024, unlimited[1]))
    with pytest.raises(ResourceExhausted, match="file size limit reached") as failure:
        service.build(add(1.0))
    assert failure.value.retryable
    process.rlimit(psutil.RLIMIT_FSIZE, unlimited)
    assert not done(service.build(add(1.0))).cached
    assert done(service.build(add(1.0))).cached


def test_cancelling_ends_the_build_at_once_and_frees_its_worker(start: Callable[..., Service]) -> None:
    service = start("--workers", "1")
    worker = _hang(service)
    asked = Asked(service.start_build(add(1.0)))
    asked.wait_for("step", "start")
    behind = Asked(service.start_build(add(2.0)))
    behind.wait_for("queued")
    asked.call.cancel()
    asked.end()
    assert isinstance(asked.error, Cancelled)
    behind.end()
    assert done(behind.events)
    assert not psutil.pid_exists(worker.pid)


def test_a_build_that_one_of_two_leaves_goes_on_for_the_other(start: Callable[..., Service]) -> None:
    service = start("--workers", "1")
    worker = _hang(service)
    blocker = Asked(service.start_build(add(1.0)))
    blocker.wait_for("step", "start")
    leaving, staying = Asked(service.start_build(add(2.0))), Asked(service.start_build(add(2.0)))
    for asked in (leaving, staying):
        asked.wait_for("queued")
    leaving.call.cancel()
    leaving.end()
    worker.resume()
    staying.end()
    assert done(staying.events)
    blocker.end()
    assert done(blocker.events)


def test_waiting_builds_learn_how_many_are_ahead(start: Callable[..., Service]) -> None:
    service = start("--workers", "1")
    worker = _hang(service)
    running = Asked(service.start_build(add(1.0)))
    running.wait_for("step", "start")
    asked = []
    for number in (2, 3, 4):
        asked.append(Asked(service.start_build(add(float(number)))))
        assert asked[-1].wait_for("queued").queued.ahead == number - 2
    worker.resume()
    for one in (running, *asked):
        one.end()
        assert done(one.events)


def test_an_idle_worker_that_is_killed_is_replaced(start: Callable[..., Service]) -> None:
    service = start("--workers", "2")
    service.build(add(1.0))
    for worker in service.workers():
        worker.kill()
        while worker.status() != psutil.STATUS_ZOMBIE:
            pass
    assert done(service.build(add(2.0)))
    assert done(service.build(add(3.0)))


def test_stopping_ends_all_workers_even_those_that_hang(start: Callable[..., Service]) -> None:
    service = start("--workers", "1")
    worker = _hang(service)
    asked = Asked(service.start_build(add(1.0)))
    asked.wait_for("step", "start")
    service.process.terminate()
    assert service.process.wait(30) == 0
    asked.end()
    assert asked.error is not None
    assert asked.error.retryable
    assert not psutil.pid_exists(worker.pid)


def test_a_killed_service_leaves_no_workers(start: Callable[..., Service]) -> None:
    service = start("--workers", "2")
    service.build(add(1.0))
    workers = service.workers()
    service.kill()
    assert len(workers) == 2
    assert not psutil.wait_procs(workers, timeout=20)[1]
