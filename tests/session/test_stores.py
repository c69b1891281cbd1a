"""Artifacts too large to be sent along: the worker takes them from the compiler's store, else from the client."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from clients.sdk.compiler import Compiler
from clients.sdk.device import INLINE_BYTES, Device
from compiler_service.build import build_variant
from crossfarm.artifact import Artifact, write_artifact
from crossfarm.frontends.tvmscript import parse
from crossfarm.target import Target
from crossfarm.wire.v1.compiler_pb2 import BuildOptions
from tests.compiler_service.conftest import Service
from tests.session.harness import WorkerLease

TWICE = """
@T.prim_func
def twice(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
    for i in range(4):
        B[i] = A[i] * T.float32(2)
"""
F = np.arange(4, dtype=np.float32)


@pytest.fixture(scope="module")
def large() -> Artifact:
    """An artifact that no message carries; what makes it large is of no use to the program."""
    built = build_variant(parse(TWICE), Target.detect(), BuildOptions())
    artifact = write_artifact("large", [built.variant], [built.code + random.Random(0).randbytes(INLINE_BYTES)])
    assert artifact.size > INLINE_BYTES
    return artifact


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A compiler service with its store, and nothing to build."""
    service = Service(tmp_path_factory.mktemp("compiler"), "--workers", "1")
    yield service
    service.stop()


@pytest.fixture
def device_with(tmp_path: Path) -> Iterator[Callable[..., Device]]:
    """Devices whose workers know some stores; each time with an empty cache."""
    opened: list[Device] = []

    def make(*stores: str) -> Device:
        arguments = [word for store in stores for word in ("--store", store)]
        lease = WorkerLease("cpu", tmp_path / f"state{len(opened)}", arguments=arguments)
        opened.append(Device(lease))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for device in opened:
        device.close()


def _store(service: Service, artifact: Artifact) -> None:
    compiler = Compiler(service.address)
    assert compiler.store(artifact) == artifact.digest
    compiler.close()


def _source(device: Device, artifact: Artifact) -> str:
    """Where the device had it from, once it has run."""
    loaded = device.load(artifact)
    np.testing.assert_array_equal(loaded["twice"](F), F * 2)
    return loaded.source


def test_the_client_sends_what_the_store_does_not_have_and_the_next_load_finds_it(
    compiler: Service, large: Artifact, device_with: Callable[..., Device]
) -> None:
    device = device_with(compiler.address)
    assert _source(device, large) == "tensor"
    assert _source(device, large) == "cache"


def test_a_large_artifact_comes_from_the_compilers_store(
    compiler: Service, large: Artifact, device_with: Callable[..., Device]
) -> None:
    _store(compiler, large)
    device = device_with(compiler.address)
    assert _source(device, large) == compiler.address
    assert _source(device, large) == "cache"


def test_a_store_that_cannot_be_reached_is_passed_over(
    compiler: Service, large: Artifact, device_with: Callable[..., Device]
) -> None:
    _store(compiler, large)
    assert _source(device_with("127.0.0.1:1", compiler.address), large) == compiler.address


@pytest.mark.parametrize("damage", ["another byte", "shorter", "longer"])
def test_wrong_bytes_from_a_store_are_refused_and_the_client_sends_the_right_ones(
    damage: str, compiler: Service, large: Artifact, device_with: Callable[..., Device]
) -> None:
    _store(compiler, large)
    (file,) = [
        path for path in (compiler.directory / "store").rglob("*") if path.name in (large.digest, large.digest[2:])
    ]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    wrong = {"another byte": content, "shorter": content[:-1], "longer": content + b"x"}[damage]
    file.chmod(0o600)
    file.write_bytes(wrong)
    try:
        assert _source(device_with(compiler.address), large) == "tensor"
    finally:
        file.write_bytes(large.data)
