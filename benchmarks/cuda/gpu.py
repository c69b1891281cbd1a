"""Programs on the GPU of this machine, by the agent's own driver, and what they are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cpu.works import Work
from compiler_service.build import build_variant
from crossfarm.artifact import Signature, write_artifact
from crossfarm.frontends.tvmscript import parse
from crossfarm.wire.v1 import compiler_pb2
from device_agent.drivers import cuda
from device_agent.drivers.base import ANYWHERE, BoundCall

Array = np.ndarray[Any, Any]
#: How long a measurement lasts at least, in seconds; the least of several is what counts.
_LASTS, _REPEATS = 0.2, 5


class Gpu:
    """The first GPU. Raises SystemExit where there is none."""

    def __init__(self) -> None:
        found = cuda.probe()
        if not found:
            raise SystemExit("no GPU is found: look at nvidia-smi, and whether this Python has pycuda")
        self.attributes, self.target = found[0].attributes, found[0].target
        self.device = cuda.open_device(0)

    def upload(self, array: Array) -> cuda.CudaMemory:
        memory = self.device.allocate(array.nbytes)
        memory.write(0, array.reshape(-1).view(np.uint8).data)
        return memory

    def download(self, memory: cuda.CudaMemory, shape: tuple[int, ...]) -> Array:
        return np.frombuffer(memory.read(0, memory.size), np.float32).reshape(shape)

    def bound(self, work: Work, memories: list[cuda.CudaMemory]) -> BoundCall:
        """The work's function, built by the default schedule, on inputs and output in this order."""
        built = build_variant(parse(work.program), self.target, compiler_pb2.BuildOptions())
        artifact = write_artifact(work.op, [built.variant], [built.code])
        (variant,) = artifact.variants
        signature = Signature(variant.entry_points[0])
        arrays = [np.broadcast_to(np.float32(0), shape) for shape in (*work.inputs, work.output)]
        program = self.device.load(artifact, variant)
        return program.bind(signature, memories, signature.bind(arrays), ANYWHERE)

    def copying(self, size: int) -> Callable[[int], None]:
        """A copy of ``size`` bytes within the GPU's memory, so many times."""
        source, target = self.device.allocate(size), self.device.allocate(size)

        def repeat(number: int) -> None:
            with self.device.working("copying"):
                for _ in range(number):
                    self.device.cuda.memcpy_dtod_async(target.address, source.address, size, self.device.stream)
                self.device.stream.synchronize()

        return repeat


def seconds(repeat: Callable[[int], None]) -> float:
    """Of one run: the least mean of some measurements of many runs each."""
    number = 1
    while (took := _timed(repeat, number)) < _LASTS:
        number = max(number + 1, int(number * min(10.0, 1.2 * _LASTS / max(took, 1e-6))))
    return min(_timed(repeat, number) for _ in range(_REPEATS)) / number


def _timed(repeat: Callable[[int], None], number: int) -> float:
    start = time.perf_counter()
    repeat(number)
    return time.perf_counter() - start
