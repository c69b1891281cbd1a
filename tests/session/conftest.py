"""Programs built once, and devices in worker processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clients.sdk.device import Device
from compiler_service.build import build_variant
from crossfarm.artifact import Artifact, write_artifact
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.serialize import dumps
from crossfarm.target import Target
from crossfarm.wire.v1.compiler_pb2 import BuildOptions
from tests.session.harness import open_device
from tests.session.programs import PROGRAMS


@pytest.fixture(scope="session")
def artifact() -> Artifact:
    """The functions of ``programs.py``, built for this machine."""
    module = parse(PROGRAMS)
    built = build_variant(module, Target.detect(), BuildOptions(), lambda *_: None)
    return write_artifact("programs", [built.variant], [built.code], module=dumps(module))


@pytest.fixture
def device_of(tmp_path: Path) -> Iterator[Callable[..., Device]]:
    """Opens devices of a driver, with limits as a lease has them (``call_ms=``, ``memory_bytes=``); closes them."""
    opened: list[Device] = []

    def make(driver: str = "cpu", **limits: int) -> Device:
        opened.append(open_device(driver, tmp_path, **limits))
        return opened[-1]

    yield make
    for device in opened:
        device.close()


@pytest.fixture(scope="module")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """One CPU device for tests that leave it as it was."""
    with open_device("cpu", tmp_path_factory.mktemp("state")) as device:
        device.synchronize()  # the connection is the device's, not that of the first test to use it
        yield device
