"""Launches of one kernel of an artifact, by our driver or without it: a process of its own, asked by the benchmark.

``python -m benchmarks.devices.launching --kind opencl --by driver --device NAME ARTIFACT`` answers as
benchmarks/peers/serving.py says; works are ``synchronous`` and ``queued`` calls of the artifact's only function.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.devices.bare_opencl import BareOpenCl
from benchmarks.devices.bare_vulkan import BareVulkan
from benchmarks.devices.one_launch import OneLaunch
from benchmarks.devices.works import QUEUED
from benchmarks.peers.serving import Array, PythonRunner, Runner, Work, inputs, serve
from crossfarm.artifact import Artifact, Signature
from device_agent import drivers
from device_agent.drivers.base import ANYWHERE, Memory


class Launcher(Protocol):
    """A kernel with its arguments."""

    def run(self, number: int) -> None:
        """So many calls, and their end."""

    def output(self) -> Array:
        """What the last call gave."""


class OurDriver:
    """A call as a worker has it: bound once, repeated."""

    def __init__(self, artifact: Artifact, arrays: list[Array], kind: str, device: str) -> None:
        driver = drivers.get(kind)
        names = [description.attributes["name"] for description in driver.probe()]
        opened = driver.open_device(names.index(device))
        (variant,) = artifact.variants
        signature = Signature(variant.entry_points[0])
        self._memories: list[Memory] = []
        for array in arrays:
            memory = opened.allocate(array.nbytes)
            memory.write(0, memoryview(array.tobytes()))
            self._memories.append(memory)
        self._call = opened.load(artifact, variant).bind(signature, self._memories, signature.bind(arrays), ANYWHERE)
        self._result = arrays[-1]

    def run(self, number: int) -> None:
        self._call.repeat(number)

    def output(self) -> Array:
        read = self._memories[-1].read(0, self._result.nbytes)
        return np.frombuffer(bytes(read), np.float32).reshape(self._result.shape)


class QueuedRunner:
    """Calls that only wait for the end of the last."""

    def __init__(self, launcher: Launcher) -> None:
        self._run = launcher.run
        self.output = launcher.output

    def run(self, times: int) -> float:
        began = time.perf_counter()
        self._run(times)
        return (time.perf_counter() - began) / times


#: Kind of device → the package that drives it, and launches by that alone.
BARE: Mapping[str, tuple[str, Callable[[OneLaunch, str], Launcher]]] = {
    "opencl": ("pyopencl", BareOpenCl),
    "vulkan": ("vulkan", BareVulkan),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.devices.launching")
    parser.add_argument("--kind", choices=sorted(BARE), required=True)
    parser.add_argument("--by", choices=("driver", "bare"), required=True)
    parser.add_argument("--device", required=True, help="its name, as the agent's driver gives it")
    parser.add_argument("artifact", type=Path)
    options = parser.parse_args()
    artifact = Artifact.open(options.artifact)
    package, bare = BARE[options.kind]
    # made once: a second device of the same driver would be one more with threads
    kept: list[Launcher] = []

    def prepare(work: Work) -> Runner:
        if not kept:
            shapes = (*(tuple(shape) for shape in work["inputs"]), tuple(work["output"]))
            arrays = inputs(*shapes)
            if options.by == "driver":
                kept.append(OurDriver(artifact, arrays, options.kind, options.device))
            else:
                kept.append(bare(OneLaunch.of(artifact, arrays), options.device))
        (launcher,) = kept
        if work["op"] == QUEUED:
            return QueuedRunner(launcher)
        return PythonRunner(lambda: launcher.run(1), launcher.output)

    serve(f"{package} {version(package)}", prepare)


if __name__ == "__main__":
    main()
