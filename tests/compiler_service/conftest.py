"""A real compiler service process and a stub that calls it over real gRPC."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import psutil
import pytest

from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, FloatImm, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.serialize import dumps
from crossfarm.ir.stmt import BufferStore, For, SeqStmt
from crossfarm.target import Target
from crossfarm.wire.channels import open_channel
from crossfarm.wire.status import rpc_errors
from crossfarm.wire.v1 import compiler_pb2_grpc
from crossfarm.wire.v1.compiler_pb2 import BuildEvent, BuildOptions, BuildRequest

START_SECONDS = 60.0


class Service:
    """A running ``python -m compiler_service serve``; stopped by ``stop``."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        announce = directory / "announce.json"
        announce.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "compiler_service", "serve", "--listen", "127.0.0.1:0", "--with-parent"),
                *("--store", str(directory / "store"), "--announce", str(announce), *arguments),
            ]
        )
        deadline = time.monotonic() + START_SECONDS
        while not announce.exists():
            assert self.process.poll() is None, "the service ended before it announced itself"
            assert time.monotonic() < deadline, "the service did not announce itself"
            time.sleep(0.01)
        self.address = json.loads(announce.read_text())["address"]
        self.channel = open_channel(self.address)
        grpc.channel_ready_future(self.channel).result(START_SECONDS)
        self.stub = compiler_pb2_grpc.CompilerStub(self.channel)

    def start_build(self, module: IRModule, *targets: str, **options: object) -> grpc.UnaryStreamCall:
        """The call as gRPC gives it: iterate it, or cancel it."""
        request = BuildRequest(
            module=dumps(module),
            targets=[Target(word).to_proto() for word in targets or ("llvm",)],
            options=BuildOptions(**options),  # type: ignore[arg-type]
        )
        return self.stub.Build(request)

    def build(self, module: IRModule, *targets: str, **options: object) -> list[BuildEvent]:
        """All events of a build; raises the crossfarm error it failed with."""
        with rpc_errors(doing="building", peer=self.address):
            return list(self.start_build(module, *targets, **options))

    def workers(self) -> list[psutil.Process]:
        """The build worker processes."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "compiler_service.worker" in child.cmdline()]

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.channel.close()
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.channel.close()
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two workers, shared by a file's tests."""
    running = Service(tmp_path_factory.mktemp("service"), "--workers", "2")
    yield running
    running.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services of a test's own."""
    started: list[Service] = []

    def begin(*arguments: str, directory: str = "service") -> Service:
        started.append(Service(tmp_path / directory, *arguments))
        return started[-1]

    yield begin
    for one in started:
        one.stop()


def add(constant: float, name: str = "Sample") -> IRModule:
    """``B[i] = A[i] + constant``: another constant makes it another module."""
    a, b, i = Buffer("A", (IntImm(64),)), Buffer("B", (IntImm(64),)), Var("i")
    value = Binary("add", BufferLoad(a, (i,)), FloatImm(constant))
    return IRModule({"main": PrimFunc((a, b), For(i, IntImm(0), IntImm(64), BufferStore(b, value, (i,))))}, name=name)


def large(statements: int) -> IRModule:
    """A function of so many statements in a row, which takes the compiler time and memory in proportion."""
    a, b = Buffer("A", (IntImm(statements),)), Buffer("B", (IntImm(statements),))
    rows: Sequence[BufferStore] = [
        BufferStore(
            b, Binary("mul", BufferLoad(a, (IntImm(i),)), FloatImm(float(i) + 0.5)), (IntImm(statements - 1 - i),)
        )
        for i in range(statements)
    ]
    return IRModule({"main": PrimFunc((a, b), SeqStmt(tuple(rows)))}, name="Large")


def done(events: Sequence[BuildEvent]) -> BuildEvent.Done:
    """The last event, which must be ``done``."""
    assert events[-1].WhichOneof("event") == "done"
    return events[-1].done
