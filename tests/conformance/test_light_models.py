"""Real architectures, from their ONNX files through a farm to a device: the numbers that their package ships, and with
random weights those of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks.models import light
from benchmarks.models.light import Array
from clients.sdk import Device, Farm
from crossfarm.frontends.onnx import load_onnx

pytestmark = [pytest.mark.models, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=light.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def on_fresh_device(farm: Farm, kind: str) -> Iterator[Device]:
    """A lease for one model alone: its weights are many."""
    with farm.acquire(f"kind={kind}", timeout=60) as leased:
        yield leased


def run(farm: Farm, device: Device, model: onnx.ModelProto | Path, x: Array) -> Array:
    built = farm.build(load_onnx(model), target=device.target)
    return np.asarray(device.load(built)["main"](x))


def test_the_output_that_the_model_comes_with(name: str, farm: Farm, on_fresh_device: Device) -> None:
    model = onnx.load(light.path(name))
    got = run(farm, on_fresh_device, light.path(name), light.data(model))
    light.close(got, light.expected(name))


def test_random_weights_give_what_onnx_runtime_gives(
    name: str, farm: Farm, on_fresh_device: Device, tmp_path: Path
) -> None:
    model = light.with_random_weights(onnx.load(light.path(name)), seed=7)
    x = light.data(model)
    file = tmp_path / "model.onnx"
    onnx.save(model, file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # the files list initializers as inputs, which it warns of one by one
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {light.given(model): x})
    light.close(run(farm, on_fresh_device, file, x), wanted)
