"""Builds under way: each runs once however many ask for it, tells all its progress, and ends when all have left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from compiler_service.workers import START, Built, Job, WorkerPool
from crossfarm.artifact import Artifact, write_artifact
from crossfarm.errors import Error, InfrastructureError
from crossfarm.target import Target
from crossfarm.wire.v1.compiler_pb2 import BuildEvent, BuildOptions

#: Called with the finished artifact before anybody is told of it: it is in the store when they are.
Keep = Callable[[Artifact], None]


class Build:
    """One build: its variants run at the same time as far as workers are free.

    Args:
        pool: where the variants are built.
        seconds: time limit of each variant.
    """

    def __init__(
        self,
        pool: WorkerPool,
        module: bytes,
        targets: Sequence[Target],
        options: BuildOptions,
        seconds: float,
        keep: Keep,
    ) -> None:
        self._pool, self._module, self._options, self._keep = pool, module, options, keep
        self._condition = threading.Condition()
        self._events: list[BuildEvent] = []
        self._failure: Error | None = None
        self._finished = False
        self._abandoned = False
        self._followers = 0
        self._started: float | None = None
        self._jobs = [self._job(target, seconds) for target in targets]

    def run(self) -> None:
        """Builds, keeps the artifact and tells the followers; never raises what they are told."""
        failure: Error | None = InfrastructureError("the build ended for a reason that only the service's log tells")
        try:
            artifact, seconds, steps = self._build()
            self._keep(artifact)
            done = BuildEvent.Done(digest=bytes.fromhex(artifact.digest), size=artifact.size, seconds=seconds)
            done.steps.extend(BuildEvent.StepTime(name=name, seconds=taken) for name, taken in steps)
            self._tell(BuildEvent(done=done))
            failure = None
        except Error as error:
            failure = error
        finally:
            with self._condition:
                self._failure, self._finished = failure, True
                self._condition.notify_all()

    def join(self) -> bool:
        """One more follower; False when it is too late to follow (everybody left, or it failed)."""
        with self._condition:
            if self._abandoned or self._failure is not None:
                return False
            self._followers += 1
            return True

    def leave(self) -> None:
        """A follower is gone; the last one's leaving ends the build."""
        with self._condition:
            self._followers -= 1
            self._abandoned = self._followers == 0 and not self._finished
            self._condition.notify_all()
        if self._abandoned:
            self._cancel()

    def follow(self, active: Callable[[], bool]) -> Iterator[BuildEvent]:
        """All events from the first, as they come, while ``active()``; raises what the build failed with."""
        position = 0
        while True:
            with self._condition:
                while position == len(self._events) and not self._finished and active():
                    self._condition.wait()
                fresh, position = self._events[position:], len(self._events)
                ended = self._finished or not active()
            yield from fresh
            if ended:
                if self._failure is not None:
                    raise self._failure
                return

    def _build(self) -> tuple[Artifact, float, list[tuple[str, float]]]:
        if len(self._jobs) == 1:
            built = [self._pool.run(self._jobs[0])]
        else:
            built = self._run_all()
        # queueing is not counted
        started = time.monotonic() if self._started is None else self._started
        several = len(built) > 1
        toolchain: dict[str, str] = {}
        steps: list[tuple[str, float]] = []
        for job, one in zip(self._jobs, built, strict=True):
            toolchain.update(one.toolchain)
            steps.extend((f"{job.target.label}: {name}" if several else name, seconds) for name, seconds in one.steps)
        artifact = write_artifact(
            built[0].name,
            [one.variant for one in built],
            [one.code for one in built],
            self._module,
            [one.sources for one in built] if any(one.sources for one in built) else (),
            toolchain,
            _options_text(self._options),
        )
        # a worker's first message may have waited for this process: its own clock knows better
        worked = max(sum(seconds for _, seconds in one.steps) for one in built)
        return artifact, max(time.monotonic() - started, worked), steps

    def _run_all(self) -> list[Built]:
        """All variants at once; the first failure ends the others."""
        with ThreadPoolExecutor(len(self._jobs), thread_name_prefix="variant") as threads:
            futures = [threads.submit(self._pool.run, job) for job in self._jobs]
            ended, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failure = next((future.exception() for future in ended if future.exception() is not None), None)
            if failure is not None:
                self._cancel()
                raise failure
            return [future.result() for future in futures]

    def _cancel(self) -> None:
        for job in self._jobs:
            self._pool.cancel(job)

    def _job(self, target: Target, seconds: float) -> Job:
        def on_queue(ahead: int) -> None:
            self._tell(BuildEvent(queued=BuildEvent.Queued(ahead=ahead)))

        def on_step(name: str, index: int, count: int) -> None:
            with self._condition:
                if self._started is None and name != START:
                    self._started = time.monotonic()
            self._tell(BuildEvent(step=BuildEvent.Step(target=target.label, name=name, index=index, count=count)))

        return Job(self._module, target, self._options, seconds, on_queue, on_step)

    def _tell(self, event: BuildEvent) -> None:
        with self._condition:
            self._events.append(event)
            self._condition.notify_all()


def _options_text(options: BuildOptions) -> dict[str, str]:
    """What of the options shaped the artifact, for its manifest."""
    level = options.opt_level if options.opt_level or options.opt_level_set else 3
    return {
        "opt_level": str(level),
        "keep_sources": str(options.keep_sources).lower(),
        "schedule": options.schedule or "default",
    }
