"""The pool of build workers: each a process with a pipe of its own, so that one that dies takes nothing with it.

A worker that crashes, is killed, runs out of its time or is cancelled is replaced at once; the others and the builds
that wait notice nothing. (A pool with one shared queue cannot promise that: a process killed while it holds the
queue's lock stops all of them.)
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from compiler_service.frames import Pipe
from crossfarm.errors import BuildFailed, Cancelled, Error, InfrastructureError, ResourceExhausted, Unavailable
from crossfarm.target import Target
from crossfarm.wire.status import from_detail
from crossfarm.wire.v1.artifact_pb2 import Variant
from crossfarm.wire.v1.capabilities_pb2 import ErrorDetail
from crossfarm.wire.v1.compiler_pb2 import BuildOptions

log = logging.getLogger(__name__)

#: A worker is replaced by a fresh one after this many builds, which bounds what the compiler leaks.
BUILDS_PER_WORKER = 1000
#: A build whose worker was killed from outside begins anew in another one, until this many were.
KILLS_PER_BUILD = 3
#: How long a new worker may take to load the compiler on a busy machine.
START_SECONDS = 120.0
#: How much of what a dead worker printed goes into the error.
_TAIL_BYTES = 1500
#: A job's step from when it has a worker until that has told the first one; the worker may still be warming up.
START = "start"


@dataclass(frozen=True)
class Limits:
    """What one build may take, and how many may wait.

    Attributes:
        seconds: of one variant's build, waiting for a worker not counted.
        memory_bytes: of address space on top of an idle worker's.
        waiting: jobs in the queue before new ones are refused.
    """

    seconds: float = 300.0
    memory_bytes: int = 4 << 30
    waiting: int = 256


@dataclass
class Job:
    """One variant to build. ``on_queue(ahead)`` and ``on_step(name, index, count)`` are called as it goes."""

    module: bytes
    target: Target
    options: BuildOptions
    seconds: float
    on_queue: Callable[[int], None]
    on_step: Callable[[str, int, int], None]
    step: str = START
    cancelled: bool = field(default=False, init=False)
    worker: _Worker | None = field(default=None, init=False)


@dataclass(frozen=True)
class Built:
    """What a worker gives back; see ``compiler_service.build.BuiltVariant``."""

    name: str
    variant: Variant
    code: bytes
    sources: dict[str, str]
    toolchain: dict[str, str]
    steps: list[tuple[str, float]]


class WorkerPool:
    """A fixed number of warm build workers and a first-come-first-served queue before them.

    Args:
        size: workers, that is builds at once.
        limits: of each build.
    """

    def __init__(self, size: int, limits: Limits) -> None:
        self.size = size
        self.limits = limits
        self._condition = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._closed = False
        self._workers = {_Worker(limits) for _ in range(size)}
        self._idle = list(self._workers)

    def run(self, job: Job) -> Built:
        """Builds ``job`` in a worker; blocks until it is built.

        Raises:
            BuildFailed: the compiler refused, crashed, or met a limit; says in which step.
            Cancelled: ``cancel`` was called.
            ResourceExhausted: the queue is full. Unavailable: the pool closed, or worker after worker was killed.
            Error: what the worker raised.
        """
        kills = 0
        while True:
            worker = self._take(job)
            job.step = START
            job.on_step(START, 0, 0)
            try:
                return worker.build(job)
            except _Killed as killed:
                if killed.began and (kills := kills + 1) >= KILLS_PER_BUILD:
                    raise Unavailable(
                        f"the worker was killed from outside (SIGKILL) in step {job.step!r}, {kills} times in a row",
                        hint="try again; if the machine is short of memory, give it fewer --workers",
                        details={"step": job.step, "signal": "SIGKILL"},
                    ) from None
                continue  # nothing that the module did: another worker will do
            finally:
                with self._condition:
                    job.worker = None
                self._give_back(worker)

    def cancel(self, job: Job) -> None:
        """Ends ``job`` wherever it is; ``run`` raises Cancelled."""
        with self._condition:
            job.cancelled = True
            if job.worker is not None:
                job.worker.kill()
            self._condition.notify_all()

    def close(self) -> None:
        """Kills all workers; running and waiting jobs end with Unavailable. Returns when that is done."""
        with self._condition:
            self._closed = True
            for worker in self._workers:
                worker.kill()
            self._condition.notify_all()
            # each busy one comes back through the thread that runs its job
            self._condition.wait_for(lambda: len(self._idle) == len(self._workers))
            for worker in self._workers:
                worker.end()

    def _take(self, job: Job) -> _Worker:
        with self._condition:
            if len(self._waiting) >= self.limits.waiting:
                raise ResourceExhausted(
                    f"{len(self._waiting)} builds wait already", hint="try again when the service is less busy"
                )
            self._waiting.append(job)
            told = -1
            try:
                while True:
                    if self._closed:
                        raise Unavailable("the compiler service is stopping", hint="try again")
                    if job.cancelled:
                        raise Cancelled("the build was cancelled while it waited")
                    ahead = self._waiting.index(job)
                    if ahead == 0 and self._idle:
                        # the last to come back is the likeliest to be warm in the caches
                        job.worker = self._idle.pop()
                        return job.worker
                    if ahead != told:
                        told = ahead
                        job.on_queue(ahead)
                    self._condition.wait()
            finally:
                self._waiting.remove(job)
                self._condition.notify_all()

    def _give_back(self, worker: _Worker) -> None:
        usable = worker.usable
        if not usable:
            worker.end()
        with self._condition:
            if not usable and not self._closed:
                self._workers.discard(worker)
                worker = _Worker(self.limits)
                self._workers.add(worker)
            self._idle.append(worker)
            self._condition.notify_all()


class _Killed(Exception):
    """A worker was killed by somebody else (an operator, the kernel), or was found dead before it began with the job.

    A compiler that fails aborts or faults; SIGKILL is never its own doing.
    """

    def __init__(self, *, began: bool) -> None:
        super().__init__()
        self.began = began


class _Worker:
    """One worker process, starting or ready, and the service's end of its pipe."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._builds = 0
        self._ready = False
        self._killed = False
        self._verdict: Error | None = None
        self._stderr = tempfile.TemporaryFile("ab+")  # noqa: SIM115 - lives as long as the process, closed by end()
        command = [sys.executable, "-m", "compiler_service.worker", "--memory-bytes", str(limits.memory_bytes)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            # One malloc arena for its one thread: glibc otherwise tries to make another at every allocation once the
            # address space is used up, and a build that should fail crawls on.
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},
            start_new_session=True,  # a group of its own: killed with the linker it may be running
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipe = Pipe(os.dup(self._process.stdout.fileno()), os.dup(self._process.stdin.fileno()))
        self._process.stdin.close()
        self._process.stdout.close()

    @property
    def usable(self) -> bool:
        """True when another build can be given to it."""
        return not self._killed and self._process.poll() is None and self._builds < BUILDS_PER_WORKER

    def build(self, job: Job) -> Built:
        """See ``WorkerPool.run``."""
        try:
            if not self._ready:
                with self._at_most(START_SECONDS, self._slow_start):
                    self._pipe.receive()
                    self._ready = True
            self._builds += 1
            with self._at_most(job.seconds, lambda: self._out_of_time(job)):
                return self._converse(job)
        except EOFError:
            raise self._died(job) from None
        except (KeyError, ValueError, TypeError, DecodeError) as failure:
            self.kill()
            raise InfrastructureError(f"a build worker answered nonsense: {failure}") from failure
        finally:
            self._relay_output()

    def _converse(self, job: Job) -> Built:
        self._pipe.send({"target": job.target.to_json(), "options": job.options.SerializeToString().hex()}, job.module)
        while True:
            header, blobs = self._pipe.receive()
            match header["event"]:
                case "step":
                    job.step = str(header["name"])
                    job.on_step(job.step, int(header["index"]), int(header["count"]))
                case "built":
                    return _built(header, blobs)
                case "error":
                    raise self._reported(from_detail(ErrorDetail.FromString(blobs[0])), job)
                case unknown:
                    raise ValueError(f"event {unknown!r}")

    @contextmanager
    def _at_most(self, seconds: float, error: Callable[[], Error]) -> Iterator[None]:
        """Kills the process after ``seconds``, whatever its pipe is in the middle of; ``error`` then says so."""

        def expire() -> None:
            self._verdict = error()
            self.kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def kill(self) -> None:
        """Ends the process and what it started, now."""
        self._killed = True
        if self._process.poll() is not None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # gone already

    def end(self) -> None:
        """Kills it if it still runs, waits for it, and frees what it held."""
        self.kill()
        self._process.wait()
        self._pipe.close()
        self._stderr.close()

    def _reported(self, error: Error, job: Job) -> Error:
        if isinstance(error, BuildFailed) and error.details.get("limit") == "memory":
            self.kill()  # it is short of address space: no other build should meet it
            return self._out_of_memory(job)
        return error

    def _died(self, job: Job) -> Exception:
        if job.cancelled:
            return Cancelled(f"the build was cancelled in step {job.step!r}")
        if self._verdict is not None:
            return self._verdict
        if self._killed:
            return Unavailable("the compiler service is stopping", hint="try again")
        self._killed = True
        code = self._process.wait()
        if self._ready and job.step == START:
            return _Killed(began=False)
        said = self._output().decode("utf-8", "replace")[-_TAIL_BYTES:].strip()
        how = signal.Signals(-code).name if -code in signal.valid_signals() else f"exit code {code}"
        if self._ready and code == -signal.SIGKILL:
            return _Killed(began=True)
        if not self._ready:
            return InfrastructureError(f"a build worker could not start ({how}): {said}")
        if any(sign in said for sign in ("bad_alloc", "out of memory", "Out of memory", "MemoryError")):
            return self._out_of_memory(job)
        return BuildFailed(
            f"the compiler crashed ({how}) in step {job.step!r} while building for {job.target.label}"
            + (f"; it said: {said}" if said else ""),
            hint="this is a fault of the compiler: report it with the module (module.save) and the target",
            details={"step": job.step, "signal": how},
        )

    def _slow_start(self) -> Error:
        return Unavailable(f"a build worker did not start within {START_SECONDS:.0f} s", hint="try again")

    def _out_of_time(self, job: Job) -> BuildFailed:
        return BuildFailed(
            f"the build for {job.target.label} took longer than its limit of {job.seconds:g} s, in step {job.step!r}",
            hint="raise the build's time limit, or build the functions one by one",
            details={"limit": "time", "step": job.step},
        )

    def _out_of_memory(self, job: Job) -> BuildFailed:
        return BuildFailed(
            f"the build for {job.target.label} needed more than its limit of {self._limits.memory_bytes >> 20} MiB of "
            f"memory, in step {job.step!r}",
            hint="raise the service's --memory-mib, or build the functions one by one",
            details={"limit": "memory", "step": job.step},
        )

    def _output(self) -> bytes:
        self._stderr.seek(0)
        return self._stderr.read()

    def _relay_output(self) -> None:
        """Shows in the service what the worker printed while it built (CROSSFARM_DEBUG's output, warnings)."""
        if said := self._output():
            self._stderr.truncate(0)
            sys.stderr.write(said.decode("utf-8", "replace"))


def _built(header: dict[str, Any], blobs: list[bytes]) -> Built:
    variant, code, *sources = blobs
    return Built(
        name=str(header["name"]),
        variant=Variant.FromString(variant),
        code=code,
        sources={name: text.decode() for name, text in zip(header["sources"], sources, strict=True)},
        toolchain=dict(header["toolchain"]),
        steps=[(str(name), float(seconds)) for name, seconds in header["steps"]],
    )
