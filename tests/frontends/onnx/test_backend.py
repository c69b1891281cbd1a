"""crossfarm as an ONNX backend: ONNX's interface, devices plugged in, values that shapes depend on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx.backend.base
import pytest
from onnx import helper

from crossfarm.errors import ArgumentError
from crossfarm.frontends.onnx import backend
from crossfarm.ir.module import IRModule
from tests.frontends.onnx.models import F32, HIDDEN, I64, model, tensor, transformer

X = np.arange(6, dtype=np.float32)


def reshape() -> onnx.ModelProto:
    return model(
        [helper.make_node("Reshape", ["x", "s"], ["y"])], [tensor("x", F32, [6]), tensor("s", I64, [2])],
        [tensor("y", F32, None)],
    )  # fmt: skip


def test_it_is_a_backend_of_onnx() -> None:
    assert issubclass(backend.Backend, onnx.backend.base.Backend)
    assert backend.supports_device("CPU")
    assert backend.supports_device("CPU:0")
    assert not backend.supports_device("CUDA")
    with pytest.raises(ArgumentError, match="runs on CPU, not 'CUDA'"):
        backend.prepare(reshape(), "CUDA")


def test_models_and_nodes_are_run() -> None:
    values, mask = np.ones((1, 3, HIDDEN), np.float32), np.ones((1, 1, 1, 3), bool)
    (by_order,) = backend.run_model(transformer(), [values, mask])
    (by_name,) = backend.prepare(transformer()).run({"mask": mask, "x": values})
    np.testing.assert_array_equal(by_order, by_name)
    (found,) = backend.run_node(helper.make_node("Concat", ["a", "b"], ["c"], axis=0), [X, X])
    np.testing.assert_array_equal(found, np.concatenate([X, X]))
    with pytest.raises(ArgumentError, match="no value for input mask"):
        backend.prepare(transformer()).run([values])


def test_a_model_is_made_anew_for_values_that_shapes_depend_on() -> None:
    prepared = backend.prepare(reshape())
    assert prepared.frozen == ("s",)
    for shape in ((2, 3), (3, 2)):
        (found,) = prepared.run([X, np.array(shape)])
        np.testing.assert_array_equal(found, X.reshape(shape))


def test_a_device_is_a_subclass_with_a_runner() -> None:
    built: list[IRModule] = []

    def doubling(module: IRModule) -> backend.Call:
        built.append(module)
        call = backend.interpreted(module)

        def twice(inputs: Sequence[Any]) -> Sequence[Any]:
            return [2 * x for x in call(inputs)]

        return twice

    class Doubling(backend.Backend):
        runner = staticmethod(doubling)
        device = "DOUBLE"

    node = helper.make_node("Neg", ["x"], ["y"])
    prepared = Doubling.prepare(model([node], [tensor("x", F32, [6])], [tensor("y", F32, [6])]), "DOUBLE")
    np.testing.assert_array_equal(prepared.run([X])[0], -2 * X)
    prepared.run([X])
    assert len(built) == 1


def test_sequences_are_given_back_as_lists() -> None:
    made = model([helper.make_node("SplitToSequence", ["x"], ["s"], axis=0)], [tensor("x", F32, [6])], [])
    made.graph.output.append(helper.make_tensor_sequence_value_info("s", F32, None))
    (found,) = backend.run_model(made, [X])
    assert [float(item[0]) for item in found] == list(X)
