"""What every peer's process shares: its conversation with the benchmark, and the way it takes samples.

Imports nothing of crossfarm, as it runs in the peers' own environments. A peer reads one JSON object a line from
standard input and answers each with one line on standard output. ``{"do": "prepare", "work": …}`` makes a kind of work
ready and is answered with the ``seconds`` of its second run, or ``unsupported`` and the reason; ``{"do": "measure",
"repeat": 3, "min_seconds": 0.01}`` takes samples of it; ``{"do": "result"}`` gives some of its output's elements;
``{"do": "memory"}`` the most bytes that the process has had in memory so far.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

#: How a work arrives: "op" and "sizes"; "program", the text that crossfarm compiles; shapes of "inputs" and "output".
Work = Mapping[str, Any]
Array = np.ndarray[Any, np.dtype[np.float32]]
#: How many elements of an output are compared, evenly spread over it.
PROBES = 997


class Unsupported(Exception):
    """A work that this peer cannot do."""


class Runner(Protocol):
    """A work made ready."""

    def run(self, times: int) -> float:
        """Seconds of one run, the mean of ``times`` of them back to back."""

    def output(self) -> Array:
        """What the last run gave."""


class PythonRunner:
    """A runner around a Python callable. Args: overhead: seconds of each call that are not the work's."""

    def __init__(self, call: Callable[[], object], output: Callable[[], Array], *, overhead: float = 0.0) -> None:
        self._call, self._overhead = call, overhead
        self.output = output

    def run(self, times: int) -> float:
        call = self._call
        began = time.perf_counter()
        for _ in range(times):
            call()
        return max((time.perf_counter() - began) / times - self._overhead, 1e-9)


def samples(runner: Runner, repeat: int, min_seconds: float) -> list[float]:
    """``repeat`` samples, each the mean over so many runs that they last ``min_seconds``, as crossfarm's agent does."""
    times = 1
    while (taken := runner.run(times) * times) < min_seconds:
        times = max(times + 1, min(int(times * min_seconds / taken * 1.05), times * 10))
    return [runner.run(times) for _ in range(repeat)]


def inputs(*shapes: tuple[int, ...]) -> list[Array]:
    """The inputs of a work: the same numbers, between -1 and 1, at every side."""
    return [
        np.random.default_rng(i).random(shape, dtype=np.float32) * np.float32(2) - np.float32(1)
        for i, shape in enumerate(shapes)
    ]


def probe(output: Array) -> list[float]:
    """Some elements of an output."""
    flat = output.reshape(-1)
    return [float(value) for value in flat[np.linspace(0, flat.size - 1, min(PROBES, flat.size)).astype(np.int64)]]


def peak_memory() -> int:
    """The most bytes that this process has had in memory; 0 where the system does not tell.

    Not ``getrusage``: its maximum is that of the parent too, which had forked.
    """
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def serve(name: str, prepare: Callable[[Work], Runner]) -> None:
    """Answers requests until standard input ends. ``name``: what the peer is, with its version."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints must not mix with the answers
    runner: Runner | None = None

    def answer(request: dict[str, Any]) -> dict[str, object]:
        nonlocal runner
        match request["do"]:
            case "prepare":
                runner = None  # frees what the one before held
                runner = prepare(request["work"])
                runner.run(1)
                return {"seconds": runner.run(1)}
            case "measure" if runner is not None:
                return {"seconds": samples(runner, request["repeat"], request["min_seconds"])}
            case "result" if runner is not None:
                return {"values": probe(runner.output())}
            case "memory":
                return {"bytes": peak_memory()}
            case unknown:
                raise ValueError(f"there is nothing to {unknown}")

    print(json.dumps({"ready": name}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answered = answer(json.loads(line))
        except Unsupported as reason:
            answered = {"unsupported": str(reason)}
        except Exception as error:  # noqa: BLE001 - the boundary: the benchmark stops and shows it
            answered = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answered), file=answers, flush=True)
