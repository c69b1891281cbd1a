"""One suite for every kind of device: a real farm that offers that kind, a lease of it, and the reference interpreter.

``CROSSFARM_CONFORMANCE`` names the kinds, separated by commas; by default those that need no special hardware.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import crossfarm as cf
from clients.sdk import Device, Farm
from compiler_service.roles import parameter_roles
from crossfarm.ir import dtype as dt
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.wire.v1.artifact_pb2 import Parameter

KINDS = (os.environ.get("CROSSFARM_CONFORMANCE") or "cpu,opencl,vulkan").split(",")
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of device under test."""
    return str(request.param)


@pytest.fixture(scope="module")
def farm(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A private farm with the devices of that kind."""
    base = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("CROSSFARM_CONFIG", "CROSSFARM_STATE", "CROSSFARM_CACHE", "POCL_CACHE_DIR"):
            (base / variable).mkdir()
            patch.setenv(variable, str(base / variable) + ("/none.toml" if variable.endswith("CONFIG") else ""))
        patch.delenv("CROSSFARM_TRACKER", raising=False)
        with cf.connect("embedded", embedded_devices=kind) as opened:
            opened.targets()
            with opened.acquire(f"kind={kind}", timeout=60):
                pass  # connections are the farm's, not those of the first test that uses them
            yield opened


@pytest.fixture(scope="module")
def device(farm: Farm, kind: str) -> Iterator[Device]:
    """A lease of a device of that kind."""
    with farm.acquire(f"kind={kind}", timeout=60) as leased:
        yield leased


@pytest.fixture(scope="module")
def on_device(farm: Farm, device: Device) -> OnDevice:
    return OnDevice(farm, device)


class OnDevice:
    """Builds for the device and runs there, in place like the interpreter."""

    def __init__(self, farm: Farm, device: Device) -> None:
        self.farm = farm
        self.device = device

    def load(self, module: IRModule, **options: Any) -> Any:
        return self.device.load(self.farm.build(module, target=self.device.target, **options))

    def __call__(self, module: IRModule, name: str, args: Sequence[Any], **options: Any) -> None:
        loaded = self.load(module, **options)
        loaded[name](*args)

    def dtypes(self) -> tuple[str, ...]:
        """What it computes in; float16 and float64 only where it says so."""
        features = self.device.attributes.get("features")
        if features is None:  # a CPU
            return dt.SCALARS
        known = features.split(",")
        optional = {"float64": "float64", "int8": "int8", "uint8": "int8", "int16": "int16", "uint16": "int16",
                    "int64": "int64", "uint64": "int64"}  # fmt: skip
        return tuple(d for d in dt.SCALARS if d not in optional or optional[d] in known)


def check(on_device: OnDevice, module: IRModule, name: str, args: Sequence[Any], *, rtol: float = 0.0) -> list[Any]:
    """Runs a function on the device and interpreted, on copies of ``args``; the device's, once they agree.

    An array that is only written need not be written whole: elements that the interpreter leaves as they were are
    nobody's business.
    """
    interpreted, there, odd = ([a.copy() if isinstance(a, np.ndarray) else a for a in args] for _ in range(3))
    run(module, name, interpreted)
    entry = parameter_roles(module[name])
    for role, array in zip(entry, odd):
        if role == Parameter.OUT and isinstance(array, np.ndarray):
            array.fill(1 if array.dtype == np.bool_ else 99)
    run(module, name, odd)
    on_device(module, name, there)
    for position, (actual, expected, other) in enumerate(zip(there, interpreted, odd)):
        if isinstance(actual, np.ndarray):
            decided = expected == other
            np.testing.assert_allclose(actual[decided], expected[decided], rtol=rtol, err_msg=f"argument {position}")
    return there
