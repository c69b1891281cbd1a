"""Models on every kind of device: of symbolic sizes, of narrow floats, and what is refused when they run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from crossfarm.errors import ArgumentError
from crossfarm.frontends.onnx import load_onnx
from tests.conformance.conftest import OnDevice
from tests.frontends.onnx import models


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 1e-2)])
def test_a_transformer_block_of_any_batch_and_length(on_device: OnDevice, dtype: Any, tolerance: float) -> None:
    if np.dtype(dtype).name not in on_device.dtypes():
        with pytest.raises(Exception, match=np.dtype(dtype).name):
            on_device.load(load_onnx(models.transformer(dtype)))["main"]
        return
    module = load_onnx(models.transformer(dtype))
    exact = load_onnx(models.transformer(np.float32))
    function = on_device.load(module)["main"]
    random = np.random.default_rng(5)
    for batch, length in ((1, 7), (3, 12), (2, 1)):  # one build for all of them
        x = random.standard_normal((batch, length, models.HIDDEN)).astype(dtype)
        seen = random.random((batch, 1, 1, length)) < 0.8
        got = np.asarray(function(x, seen)).astype(np.float64)
        (wanted,) = models.call(exact, x.astype(np.float32), seen)
        assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max(), (batch, length)


def test_inputs_that_do_not_fit_a_model_are_named(on_device: OnDevice) -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"])]
    inputs = [models.tensor(name, models.F32, ["rows", 4]) for name in "ab"]
    made = models.model(nodes, inputs, [models.tensor("sum", models.F32, ["rows", 4])])
    function = on_device.load(load_onnx(made))["main"]
    two, three = np.ones((2, 4), np.float32), np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(function(two, two), two + two)
    with pytest.raises(ArgumentError, match="b must have shape"):  # a size given twice with different values
        function(two, three)
    with pytest.raises(ArgumentError, match="a must have shape"):
        function(np.ones((2, 5), np.float32), two)
    with pytest.raises(ArgumentError, match="dtype float32"):
        function(two.astype(np.float64), two)
