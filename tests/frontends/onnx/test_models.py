"""Whole models: what their shapes become, and that they compute what ONNX's reference evaluator does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from crossfarm.errors import ProgramError
from crossfarm.frontends.onnx import load_onnx
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.types import TensorType
from tests.frontends.onnx.models import F32, HIDDEN, I64, call, model, operators, run, tensor, transformer

LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("light_*.onnx"))


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_models_are_read(path: Path) -> None:
    main = load_onnx(path).graph_functions["main"]
    assert len(main.params) == 1
    assert isinstance(main.result, TensorType)
    assert dims.constants(main.result.shape)[:2] == (1, 1000)  # type: ignore[index]


@pytest.mark.parametrize("kind", ["pytorch-converted", "pytorch-operator"])
def test_what_an_exporter_wrote_years_ago(kind: str) -> None:
    """ONNX's collection of models of opset 6, with inputs and outputs."""
    folders = sorted((LIGHT[0].parent.parent / kind).iterdir())
    assert folders
    for folder in folders:
        made = onnx.load(folder / "model.onnx")
        inputs, expected = (
            [numpy_helper.to_array(onnx.load_tensor(path)) for path in sorted(folder.glob(f"*/{what}_*.pb"))]
            for what in ("input", "output")
        )
        found = run(made, *inputs)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, 1e-3, 1e-5, err_msg=folder.name)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-5), (np.float16, 2e-2)])
def test_a_transformer_of_any_batch_and_length(dtype: Any, tolerance: float) -> None:
    made = transformer(dtype)
    module = load_onnx(made)
    x, mask = module.graph_functions["main"].params
    assert isinstance(x.type, TensorType)
    assert isinstance(mask.type, TensorType)
    batch, sequence = x.type.shape[:2]
    assert isinstance(batch, Var)
    assert (batch.name, mask.type.shape[0], mask.type.shape[3]) == ("batch", batch, sequence)
    assert dims.same_shape(module.graph_functions["main"].result.shape, x.type.shape)  # type: ignore[union-attr]
    assert "shape_to_tensor" not in operators(module)  # all arithmetic of shapes was done here
    evaluator = ReferenceEvaluator(made)
    random = np.random.default_rng(5)
    for shape in ((1, 7), (3, 2), (2, 1)):
        values = random.standard_normal((*shape, HIDDEN)).astype(dtype)
        seen = random.random((shape[0], 1, 1, shape[1])) < 0.8
        (found,) = call(module, values, seen)
        (expected,) = evaluator.run(None, {"x": values, "mask": seen})
        np.testing.assert_allclose(found.astype(np.float32), np.asarray(expected, np.float32), tolerance, tolerance)


def test_symbolic_sizes_may_be_fixed() -> None:
    main = load_onnx(transformer(), shapes={"x": (2, "length", HIDDEN), "mask": (2, 1, 1, "length")}).graph_functions[
        "main"
    ]
    x = main.params[0].type
    assert isinstance(x, TensorType)
    assert dims.constant(x.shape[0]) == 2
    assert isinstance(x.shape[1], Var)
    assert x.shape[1].name == "length"


def test_sizes_without_names_are_sizes_of_their_own() -> None:
    made = model(
        [helper.make_node("Concat", ["a", "b"], ["c"], axis=0)],
        [tensor("a", F32, [None, 3]), tensor("b", F32, [None, 3])],
        [tensor("c", F32, [None, 3])],
    )
    a, b = np.ones((2, 3), np.float32), np.zeros((5, 3), np.float32)
    (found,) = run(made, a, b)
    np.testing.assert_array_equal(found, np.concatenate([a, b]))


def test_names_that_are_no_identifiers_are_kept_beside() -> None:
    made = model(
        [helper.make_node("Relu", ["input.1"], ["out:0"])],
        [tensor("input.1", F32, ["N/2"])],
        [tensor("out:0", F32, None)],
    )
    main = load_onnx(made).graph_functions["main"]
    assert main.params[0].name == "input_1"
    assert main.attrs["input_names"] == ("input.1",)
    assert main.attrs["output_names"] == ("out:0",)


def test_operators_tell_which_node_they_are_of() -> None:
    main = load_onnx(transformer()).graph_functions["main"]
    origins = {getattr(b.value, "origin", "") for block in main.body.blocks for b in block.bindings}
    assert {"/n", "/q0", "/weights"} <= origins


def test_nodes_that_no_output_needs_are_not_read() -> None:
    made = model(
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Mystery", ["x"], ["z"], domain="somewhere")],
        [tensor("x", F32, [2])], [tensor("y", F32, [2])], domains=["somewhere"],
    )  # fmt: skip
    assert operators(load_onnx(made)) == ["nn.relu"]


def test_functions_of_the_model_are_inlined_with_their_attributes() -> None:
    body = [
        helper.make_node("Constant", [], ["factor"]),
        helper.make_node("Mul", ["a", "factor"], ["b"]),
    ]
    body[0].attribute.add(name="value_float", ref_attr_name="by", type=onnx.AttributeProto.FLOAT)
    scaled = helper.make_function("mine", "Scaled", ["a"], ["b"], body, [helper.make_opsetid("", 20)], ["by"])
    made = model(
        [helper.make_node("Scaled", ["x"], ["y"], domain="mine", by=3.0)],
        [tensor("x", F32, [2])], [tensor("y", F32, [2])], functions=[scaled], domains=["mine"],
    )  # fmt: skip
    np.testing.assert_array_equal(run(made, np.array([1, 2], np.float32))[0], [3, 6])


def test_sizes_are_worked_out_through_floats_and_choices() -> None:
    """``Where(Equal(shape, -1), 1, shape)`` before Expand, and half a size through floats, as exporters write them."""
    weights = {"none": np.array([-1]), "ones": np.array([1]), "two": np.array([2.0], np.float32), "zero": np.array([0])}
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Equal", ["s", "none"], ["free"]),
        helper.make_node("Where", ["free", "ones", "s"], ["target"]),
        helper.make_node("Expand", ["y", "target"], ["wide"]),
        helper.make_node("Cast", ["s"], ["f"], to=F32),
        helper.make_node("Mul", ["f", "two"], ["f2"]),
        helper.make_node("Div", ["f2", "two"], ["f1"]),
        helper.make_node("Floor", ["f1"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["end"], to=I64),
        helper.make_node("Slice", ["wide", "zero", "end", "zero"], ["z"]),
    ]
    made = model(nodes, [tensor("x", F32, ["n"]), tensor("y", F32, [1])], [tensor("z", F32, ["n"])], weights)
    module = load_onnx(made)
    assert operators(module) == ["broadcast_to"]
    (found,) = call(module, np.zeros(4, np.float32), np.array([7], np.float32))
    np.testing.assert_array_equal(found, np.full(4, 7))


def test_sizes_that_the_function_returns_are_tensors() -> None:
    made = model(
        [helper.make_node("Shape", ["x"], ["s"])], [tensor("x", F32, ["n", 3])], [tensor("s", I64, [2])]
    )  # fmt: skip
    np.testing.assert_array_equal(run(made, np.zeros((5, 3), np.float32))[0], [5, 3])


def test_a_large_range_of_a_symbolic_size() -> None:
    weights = {"i0": np.array(0), "i1": np.array(1)}
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "i0"], ["n"]),
        helper.make_node("Range", ["i0", "n", "i1"], ["r"]),
    ]
    made = model(nodes, [tensor("x", TensorProto.BOOL, ["n"])], [tensor("r", I64, ["n"])], weights)
    np.testing.assert_array_equal(run(made, np.zeros(6, bool))[0], np.arange(6))


def test_sizes_that_a_model_takes_for_equal_are_checked_when_it_runs() -> None:
    """Attention over what came before and what is new, with a mask whose length the model names ``total``."""
    nodes = [
        helper.make_node("Concat", ["past", "new"], ["keys"], axis=0),
        helper.make_node("Add", ["keys", "mask"], ["y"]),
    ]
    made = model(
        nodes, [tensor("past", F32, ["p", 2]), tensor("new", F32, ["n", 2]), tensor("mask", F32, ["total", 1])],
        [tensor("y", F32, ["total", 2])],
    )  # fmt: skip
    module = load_onnx(made)
    past, new, mask = np.ones((3, 2), np.float32), np.zeros((1, 2), np.float32), np.ones((4, 1), np.float32)
    np.testing.assert_array_equal(call(module, past, new, mask)[0], np.concatenate([past, new]) + mask)
    with pytest.raises(ProgramError, match="match_cast"):
        call(module, past, new, mask[:3])


def test_a_window_of_a_table_is_held_to_its_length() -> None:
    """The causal mask of models that keep it as a weight: ``mask[:n, :n]``."""
    weights = {"mask": np.tril(np.ones((5, 5), bool)), "low": np.array(-1, np.float32)}
    weights |= {"i0": np.array([0]), "i1": np.array([1])}
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "i0", "i1", "i0"], ["n"]),
        helper.make_node("Slice", ["mask", "i0", "n", "i0"], ["rows"]),
        helper.make_node("Slice", ["rows", "i0", "n", "i1"], ["part"]),
        helper.make_node("Where", ["part", "x", "low"], ["y"]),
    ]
    module = load_onnx(model(nodes, [tensor("x", F32, ["n", "n"])], [tensor("y", F32, ["n", "n"])], weights))
    x = np.ones((3, 3), np.float32)
    np.testing.assert_array_equal(call(module, x)[0], np.where(np.tril(x) > 0, x, -1))
    with pytest.raises(ProgramError, match="match_cast"):
        call(module, np.ones((6, 6), np.float32))


def test_images_of_any_size_are_made_twice_as_large() -> None:
    weights = {"scales": np.array([1, 1, 2, 2], np.float32)}
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")
    made = model([node], [tensor("x", F32, [1, 1, "h", "w"])], [tensor("y", F32, [1, 1, "2h", "2w"])], weights)
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    (expected,) = ReferenceEvaluator(made).run(None, {"x": x})
    np.testing.assert_allclose(run(made, x)[0], np.asarray(expected, np.float32), 1e-5)
