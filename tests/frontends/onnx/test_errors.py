"""What cannot be read is refused with what it is, where, and what to do."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from crossfarm.errors import InvalidModule
from crossfarm.frontends.onnx import importer, load_onnx
from tests.frontends.onnx.models import F32, I64, graph, model, run, tensor


def refused(made: onnx.ModelProto, text: str, **options: object) -> InvalidModule:
    with pytest.raises(InvalidModule, match=text) as caught:
        load_onnx(made, **options)  # type: ignore[arg-type]
    return caught.value


def relu(**options: object) -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], [tensor("x", F32, ["n"])], [tensor("y", F32, ["n"])])


def test_operators_that_are_missing_are_listed_together() -> None:
    inner = graph([helper.make_node("Det", ["x"], ["d"])], [], [tensor("d", F32, None)])
    nodes = [
        helper.make_node("Mystery", ["x"], ["a"], name="first", domain="com.example"),
        helper.make_node("Mystery", ["a"], ["b"], domain="com.example"),
        helper.make_node("If", ["flag"], ["c"], name="choice", then_branch=inner, else_branch=inner),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    made = model(
        nodes, [tensor("x", F32, [2, 2]), tensor("flag", TensorProto.BOOL, [])], [tensor("y", F32, [2, 2])],
        domains=["com.example"],
    )  # fmt: skip
    error = refused(made, r"Det in 'choice/Det_0'.*; com\.example\.Mystery in 'first', 'Mystery_1'")
    assert error.details["operators"] == "Det,com.example.Mystery"


def test_an_opset_from_the_future() -> None:
    newest = onnx.defs.onnx_opset_version()
    made = relu()
    made.opset_import[0].version = newest + 1
    refused(made, f"uses version {newest + 1} of the ai.onnx operators; this onnx package knows {newest}")


def test_an_opset_from_the_past() -> None:
    made = relu()
    made.opset_import[0].version = 5
    refused(made, "uses version 5 of the ai.onnx operators; 6 is the oldest read")


def test_a_shape_that_is_known_only_when_the_model_runs() -> None:
    made = model(
        [helper.make_node("Reshape", ["x", "s"], ["y"], name="r")],
        [tensor("x", F32, [4]), tensor("s", I64, [2])], [tensor("y", F32, [2, 2])],
    )  # fmt: skip
    error = refused(made, r"node 'r' \(Reshape\): its shape must be known .*: it depends on the values of s")
    assert error.details["inputs"] == "s"
    (found,) = run(made, np.arange(4, dtype=np.float32), values={"s": np.array([2, 2])})
    assert found.shape == (2, 2)


def test_operands_that_do_not_fit_name_their_node() -> None:
    made = model(
        [helper.make_node("Add", ["x", "z"], ["y"], name="sum")],
        [tensor("x", F32, [2, 3]), tensor("z", F32, [4])], [tensor("y", F32, None)],
    )  # fmt: skip
    refused(made, r"node 'sum' \(Add\): operator add: shapes \(2, 3\) and \(4\) do not fit")


def test_elements_that_crossfarm_does_not_have() -> None:
    made = model(
        [helper.make_node("Identity", ["x"], ["y"])], [tensor("x", TensorProto.STRING, [2])],
        [tensor("y", TensorProto.STRING, [2])],
    )  # fmt: skip
    refused(made, "input 'x' has elements of type STRING")


def test_inputs_without_a_shape() -> None:
    made = relu()
    made.graph.input[0].type.tensor_type.ClearField("shape")
    refused(made, "input 'x' has no shape")
    assert len(load_onnx(made, shapes={"x": (2, "n")}).graph_functions["main"].params) == 1


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ({"z": (1,)}, "has no input 'z'; its inputs are x"),
        ({"x": (1, 2)}, "input 'x' has 1 dimensions, and shapes gives it 2"),
    ],
)
def test_shapes_that_do_not_agree(shapes: dict[str, tuple[int, ...]], text: str) -> None:
    refused(relu(), text, shapes=shapes)


def test_fixed_sizes_cannot_be_changed() -> None:
    made = model([helper.make_node("Relu", ["x"], ["y"])], [tensor("x", F32, [3])], [tensor("y", F32, [3])])
    refused(made, "input 'x' is 3 long at dimension 0, and shapes says 4", shapes={"x": (4,)})


def test_branches_of_different_shapes() -> None:
    one = graph([helper.make_node("Identity", ["x"], ["a"])], [], [tensor("a", F32, [2])])
    two = graph([helper.make_node("Concat", ["x", "x"], ["a"], axis=0)], [], [tensor("a", F32, [4])])
    made = model(
        [helper.make_node("If", ["c"], ["y"], then_branch=one, else_branch=two)],
        [tensor("x", F32, [2]), tensor("c", TensorProto.BOOL, [])], [tensor("y", F32, None)],
    )  # fmt: skip
    refused(made, r"output 0 is float32\(2\) in one branch and float32\(4\) in the other")


def test_a_loop_of_unknown_length() -> None:
    body = graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Add", ["v", "v"], ["w"])],
        [tensor("i", I64, []), tensor("c", TensorProto.BOOL, []), tensor("v", F32, [2])],
        [tensor("d", TensorProto.BOOL, []), tensor("w", F32, [2])],
    )
    made = model(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)],
        [tensor("n", I64, []), tensor("x", F32, [2])], [tensor("y", F32, [2])],
    )  # fmt: skip
    refused(made, "its trip count must be known when the model is read")
    refused(made, "loops are unrolled", values={"n": np.array(10**6)})


def test_a_recurrent_network_of_symbolic_length() -> None:
    made = model(
        [helper.make_node("RNN", ["x", "w", "r"], ["y"], hidden_size=2)],
        [tensor("x", F32, ["n", 1, 3]), tensor("w", F32, [1, 2, 3]), tensor("r", F32, [1, 2, 2])],
        [tensor("y", F32, None)],
    )
    refused(made, "its sequence must have a known length of at most 512, not n")


def test_sparse_weights() -> None:
    made = relu()
    made.graph.sparse_initializer.add().values.name = "sparse"
    refused(made, "initializer 'sparse' is sparse")


def test_an_output_that_no_node_makes() -> None:
    made = relu()
    made.graph.output[0].name = "other"
    refused(made, "no node makes output 'other'")


def test_functions_that_call_one_another_twice_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    functions = [helper.make_function("own", "f0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)]
    for depth in range(1, 40):
        calls = [helper.make_node(f"f{depth - 1}", [a], [b], domain="own") for a, b in (("a", "t"), ("t", "b"))]
        functions.append(helper.make_function("own", f"f{depth}", ["a"], ["b"], calls, opsets))
    made = model(
        [helper.make_node("f39", ["x"], ["y"], domain="own")], [tensor("x", F32, [2])], [tensor("y", F32, [2])],
        functions=functions, domains=["own"],
    )  # fmt: skip
    monkeypatch.setattr(importer, "MOST_NODES", 1000)
    refused(made, "the model has more than 1000 nodes where its loops are unrolled")


def test_loops_within_loops_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    node = helper.make_node("Neg", ["v"], ["w"])
    for _ in range(4):
        body = graph(
            [node],
            [tensor("i", I64, []), tensor("c", TensorProto.BOOL, []), tensor("v", F32, [2])],
            [tensor("c", TensorProto.BOOL, []), tensor("w", F32, [2])],
        )
        node = helper.make_node("Loop", ["n", "", "v"], ["w"], body=body)
    made = model([node], [tensor("v", F32, [2])], [tensor("w", F32, [2])], {"n": np.array(1000)})
    monkeypatch.setattr(importer, "MOST_NODES", 1000)
    refused(made, "the model has more than 1000 nodes where its loops are unrolled")


@pytest.mark.parametrize(
    ("node", "weights"),
    [
        (helper.make_node("ConstantOfShape", ["a"], ["y"]), [[-5]]),
        (helper.make_node("Range", ["a", "b", "c"], ["y"]), [0, 5, 0]),
        (helper.make_node("Range", ["a", "b", "c"], ["y"]), [0.0, 1e9, 1.0]),
        (helper.make_node("Range", ["a", "b", "c"], ["y"]), [0.0, np.nan, 1.0]),
        (helper.make_node("HannWindow", ["a"], ["y"]), [1 << 30]),
        (helper.make_node("SplitToSequence", ["x", "a"], ["y"]), [0]),
        (helper.make_node("Loop", ["", ""], ["y"]), []),
        (helper.make_node("Softmax", ["x"], ["y"], axis="last"), []),
    ],
)
def test_a_node_that_is_not_as_onnx_says(node: onnx.NodeProto, weights: list[object]) -> None:
    given = {name: np.array(value) for name, value in zip("abc", weights)}
    refused(model([node], [tensor("x", F32, [2])], [tensor("y", F32, None)], given), f"node '{node.op_type}_0'")


@pytest.mark.parametrize(
    ("shape", "data", "says"),
    [
        ([-1, -4], {"raw_data": bytes(16)}, "which no tensor has"),
        ([1 << 32, 1 << 32], {"raw_data": b""}, "holds 0 bytes"),
        ([1] * 100, {"raw_data": bytes(4)}, "which no tensor has"),
        ([5], {"float_data": [1.0, 2.0]}, "does not hold what its shape"),
    ],
)
def test_weights_that_do_not_fit_their_shape(shape: list[int], data: dict[str, object], says: str) -> None:
    made = relu()
    made.graph.initializer.append(TensorProto(name="w", data_type=F32, dims=shape, **data))  # type: ignore[arg-type]
    refused(made, f"tensor 'w' .*{says}")


def test_two_things_of_one_name() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])]
    refused(model(nodes, [tensor("x", F32, [2])], [tensor("y", F32, [2])]), "two values are called 'y'")
    one = nodes[:1]
    refused(model(one, [tensor("x", F32, [2]), tensor("x", F32, [3])], [tensor("y", F32, [2])]), "two inputs .* 'x'")
    made = model(one, [tensor("x", F32, [2])], [tensor("y", F32, [2])], {"w": np.zeros(1)})
    made.graph.initializer.append(made.graph.initializer[0])
    refused(made, "two weights are called 'w'")


@pytest.mark.parametrize("name", ["Relu", "long_name"])
def test_a_name_that_is_no_text(name: str) -> None:
    made = model(
        [helper.make_node("Relu", ["x"], ["y"])], [tensor("x", F32, ["long_name"])], [tensor("y", F32, ["long_name"])]
    )
    damaged = made.SerializeToString().replace(name.encode(), b"\xff" * len(name))
    with pytest.raises(InvalidModule, match="is no UTF-8"):
        load_onnx(damaged)
