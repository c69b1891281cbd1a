"""The peers: processes in environments of their own, all told the same, and idle while another is measured."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cpu.sides import Unsupported
from benchmarks.cpu.works import Work
from benchmarks.processes import REPOSITORY, child
from crossfarm.target import Target

#: Longer than any work: a peer that never answers must not stop the run.
ANSWER_SECONDS = 120
#: How often and how far apart an idle peer's use of the processor is looked at; the kernel counts in 10 ms.
_SETTLE_LOOKS, _SETTLE_SECONDS = 25, 0.02
#: What decides which code a BLAS takes and how many threads: a peer gets what its command says, not what is set here.
_STEERING = ("OPENBLAS_", "OMP_", "GOTO_", "MKL_", "BLIS_", "TVM_")
#: What OPENBLAS_CORETYPE is tried with, by architecture: OpenBLAS's own choice is not the best one on every CPU.
CORE_TYPES = {
    "x86_64": ("SkylakeX", "Cooperlake", "SapphireRapids", "Zen", "Haswell"),
    "aarch64": ("NEOVERSEN1", "NEOVERSEV1", "CORTEXA72", "ARMV8"),
}


class Peer:
    """A process that speaks as benchmarks/peers/serving.py says.

    Attributes:
        version: what it is.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._usage = psutil.Process(process.pid)
        self.version = str(self._answer()["ready"])

    def prepare(self, work: Work) -> float:
        return float(self.ask("prepare", work=work.message())["seconds"])

    def measure(self, repeat: int, min_seconds: float) -> list[float]:
        return [float(s) for s in self.ask("measure", repeat=repeat, min_seconds=min_seconds)["seconds"]]

    def result(self) -> list[float]:
        return [float(value) for value in self.ask("result")["values"]]

    def settle(self) -> None:
        """Returns when the process is idle: threads of BLAS and ONNX Runtime spin for tens of milliseconds after work,
        and would take a processor from whoever comes next."""
        used = _processor_seconds(self._usage)
        for _ in range(_SETTLE_LOOKS):
            time.sleep(_SETTLE_SECONDS)
            before, used = used, _processor_seconds(self._usage)
            if used == before:
                return

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """One request and its answer. Raises Unsupported, and RuntimeError for everything else that goes wrong."""
        if self._process.stdin is None:
            raise RuntimeError("the peer has no input")
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        if self._process.stdout is None:
            raise RuntimeError("the peer has no output")
        if not select.select([self._process.stdout], [], [], ANSWER_SECONDS)[0]:
            raise RuntimeError(f"a peer has not answered for {ANSWER_SECONDS} s")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a peer ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "unsupported" in answer:
            raise Unsupported(answer["unsupported"])
        if "error" in answer:
            raise RuntimeError(f"a peer reports: {answer['error']}")
        return answer


@contextmanager
def numpy(threads: int, *, log: Path, core_type: str = "") -> Iterator[Peer]:
    """numpy of this environment, with the kernels that ``core_type`` names, else those that OpenBLAS chooses."""
    settings = {"OPENBLAS_NUM_THREADS": str(threads)}
    if core_type:
        settings["OPENBLAS_CORETYPE"] = core_type
    with started([sys.executable, "-m", "benchmarks.peers.numpy_code"], settings, log) as peer:
        yield peer


@contextmanager
def onnxruntime(threads: int, *, log: Path, weights: str) -> Iterator[Peer]:
    """ONNX Runtime, ``weights`` being "initializers" or "inputs"."""
    command = [_python("ort"), "-m", "benchmarks.peers.onnxruntime_code"]
    with started([*command, "--threads", str(threads), "--weights", weights], {}, log) as peer:
        yield peer


@contextmanager
def tvm(threads: int, *, log: Path, schedule: str) -> Iterator[Peer]:
    """Apache TVM, ``schedule`` being "hand" or "default"; it is told which core this is."""
    at = Target.detect().resolved().attributes
    core = str(at.get("tune", at["cpu"]))
    command = [_python("tvm"), "-m", "benchmarks.peers.tvm_code", "--cpu", core, "--schedule", schedule]
    with started(command, {"TVM_NUM_THREADS": str(threads)}, log) as peer:
        yield peer


@contextmanager
def roofline(*, log: Path) -> Iterator[Peer]:
    """The machine's own limits: benchmarks/cpu/roofline.py."""
    with started([sys.executable, "-m", "benchmarks.cpu.roofline"], {}, log) as peer:
        yield peer


@contextmanager
def started(command: list[str], settings: Mapping[str, str], log: Path) -> Iterator[Peer]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_STEERING)}
    with child(command, log=log, environment={**environment, **settings}) as process:
        yield Peer(process)


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _python(environment: str) -> str:
    path = REPOSITORY / ".peers" / environment / "bin" / "python"
    if not path.exists():
        raise RuntimeError(f"no {environment} at {path}: run `make peers`")
    return str(path)
