"""What every side of the comparison can do, and our own: the farm as its users have it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

import crossfarm as cf
from benchmarks.cpu.works import Work
from benchmarks.peers.serving import inputs, probe
from clients.sdk.device import Device
from clients.sdk.farm import Farm
from crossfarm.artifact import Artifact


class Unsupported(Exception):
    """A work that a side cannot do."""


class Side(Protocol):
    """One who is measured."""

    def prepare(self, work: Work) -> float:
        """Makes ``work`` ready; seconds that its second run took. Raises Unsupported."""

    def measure(self, repeat: int, min_seconds: float) -> list[float]:
        """Samples of the work, each the mean of as many runs as last ``min_seconds``."""

    def settle(self) -> None:
        """Returns when nothing of the side runs any more."""

    def result(self) -> list[float]:
        """Some elements of the output, the same ones at every side."""


class CrossfarmCode:
    """The farm as its users have it: the plain program, built for the device, measured by ``benchmark`` there.

    Args:
        threads: that a call runs on; None where calls cannot choose, as on devices that run kernels.
    """

    def __init__(self, farm: Farm, device: Device, threads: int | None) -> None:
        self._farm, self._device, self._threads = farm, device, threads
        self._function: Any = None
        self._arguments: list[Any] = []
        self._output: Any = None

    def build(self, work: Work) -> Artifact:
        """The work's program, built for the device."""
        return self._farm.build(cf.parse(work.program), target=self._device.target)

    def prepare(self, work: Work) -> float:
        self._arguments = []  # frees what the work before held
        self._function = self._device.load(self.build(work))["main"]
        self._arguments = [self._device.tensor(array) for array in inputs(*work.inputs)]
        self._output = self._device.empty(work.output, "float32")
        return self._benchmark(warmup=1, repeat=1, min_repeat_ms=0)[0]

    def measure(self, repeat: int, min_seconds: float) -> list[float]:
        return self._benchmark(warmup=0, repeat=repeat, min_repeat_ms=min_seconds * 1000)

    def settle(self) -> None:
        """Nothing to do: a worker's threads sleep when there is no work."""

    def result(self) -> list[float]:
        return probe(self._output.numpy())

    def _benchmark(self, **plan: Any) -> list[float]:
        measured = self._function.benchmark(*self._arguments, out=self._output, threads=self._threads, **plan)
        return list(measured.samples)


def agree(ours: list[float], theirs: list[float], *, tolerance: float = 1e-3) -> bool:
    """True when two results are the same up to rounding: sums over thousands of terms differ in their order."""
    scale = max(1.0, float(np.abs(theirs).max()))
    return bool(np.allclose(ours, theirs, rtol=tolerance, atol=tolerance * scale))
