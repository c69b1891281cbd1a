"""The Apache TVM side of the benchmark: a client process that measures when told to.

Runs under the interpreter of ``.peers/tvm`` and imports nothing of crossfarm. It reads one JSON object a line from
standard input, such as ``{"do": "call", "count": 1000}``, and answers each with one line on standard output:
``{"seconds": [...]}``, or ``{"error": "..."}``. Sessions are deleted before the next request: one that is only
forgotten makes TVM's next request for the same key wait for ever.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tvm
from tvm import rpc

#: Long enough for the slowest step over the slow link, short enough to end a request that will never be met.
SESSION_SECONDS = 60
JOB_ELEMENTS = 65536


class Measurements:
    """What this client can measure; each method returns seconds, one value for each repetition.

    Args:
        program: path of the module's script text.
        tracker: host and port as clients near the farm reach it; ``far_tracker``: the same through the slow link.
    """

    def __init__(self, program: Path, tracker: tuple[str, int], far_tracker: tuple[str, int]) -> None:
        self._module = tvm.script.from_source(program.read_text())
        self._tracker = tracker
        self._far_tracker = far_tracker
        self._scratch = tempfile.TemporaryDirectory(prefix="tvm-peer-")
        self._library = Path(self._scratch.name) / "small.so"
        self._export()

    def close(self) -> None:
        self._scratch.cleanup()

    def build(self) -> list[float]:
        """Compile the small module and export its library. There is no cache to hit."""
        began = time.perf_counter()
        self._export()
        return [time.perf_counter() - began]

    def lease(self) -> list[float]:
        """From asking the tracker to the first answer of the device."""
        began = time.perf_counter()
        session = self._request(self._tracker, "near")
        session.cpu(0).sync()
        took = time.perf_counter() - began
        del session
        gc.collect()
        return [took]

    def call(self, count: int) -> list[float]:
        """``count`` synchronous calls of the empty function, each timed."""
        session = self._request(self._tracker, "near")
        empty = self._load(session)["empty"]
        for _ in range(min(count, 50)):
            empty()
        found = []
        for _ in range(count):
            began = time.perf_counter()
            empty()
            found.append(time.perf_counter() - began)
        del empty, session
        gc.collect()
        return found

    def tensor(self, megabytes: int, up: bool) -> list[float]:
        """Moves ``megabytes`` MB (10^6 bytes) to the device, or from it."""
        session = self._request(self._tracker, "near")
        data = np.random.default_rng(0).integers(0, 255, megabytes * 1_000_000, dtype=np.uint8)
        remote = tvm.runtime.empty(data.shape, "uint8", session.cpu(0))
        if not up:
            remote.copyfrom(data)
        began = time.perf_counter()
        if up:
            remote.copyfrom(data)
        else:
            data = remote.numpy()
        took = time.perf_counter() - began
        del remote, session
        gc.collect()
        return [took]

    def job(self) -> list[float]:
        """A whole job over the slow link: connect, load, two tensors in, call, benchmark 3 × 3, one tensor out."""
        a, b = (np.random.default_rng(seed).random(JOB_ELEMENTS, dtype=np.float32) for seed in (1, 2))
        began = time.perf_counter()
        session = self._request(self._far_tracker, "far")
        device = session.cpu(0)
        module = self._load(session)
        add = module["add"]
        x, y = tvm.runtime.tensor(a, device), tvm.runtime.tensor(b, device)
        z = tvm.runtime.empty(a.shape, "float32", device)
        add(x, y, z)
        module.time_evaluator("add", device, number=3, repeat=3)(x, y, z)
        result = z.numpy()
        took = time.perf_counter() - began
        del add, module, x, y, z, device, session
        gc.collect()
        if not np.array_equal(result, a + b):
            raise AssertionError("the remote sum is wrong")
        return [took]

    def _export(self) -> None:
        tvm.compile(self._module, target="llvm").export_library(str(self._library))

    def _request(self, tracker: tuple[str, int], key: str) -> rpc.RPCSession:
        return rpc.connect_tracker(*tracker).request(key, session_timeout=SESSION_SECONDS)

    def _load(self, session: rpc.RPCSession) -> tvm.runtime.Module:
        session.upload(str(self._library))
        return session.load_module(self._library.name)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description="the Apache TVM side of the benchmark")
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--tracker", type=_address, required=True)
    parser.add_argument("--far-tracker", type=_address, required=True)
    options = parser.parse_args()
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever TVM prints must not mix with the answers
    measurements = Measurements(options.program, options.tracker, options.far_tracker)
    print(json.dumps({"ready": tvm.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        measure: Callable[..., list[float]] = getattr(measurements, request.pop("do"))
        try:
            answer: dict[str, object] = {"seconds": measure(**request)}
        except (tvm.error.TVMError, OSError, RuntimeError, AssertionError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    measurements.close()


if __name__ == "__main__":
    main()
