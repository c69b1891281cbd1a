"""Branches, loops and sequences."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from crossfarm.frontends.onnx import load_onnx
from tests.frontends.onnx.models import F32, I64, call, graph, model, operators, run, tensor

BOOL = TensorProto.BOOL


def test_a_condition_that_is_not_known_keeps_both_branches() -> None:
    both = [tensor("a", F32, ["n"]), tensor("b", F32, ["n"])]
    then = graph([helper.make_node("Exp", ["x"], ["a"]), helper.make_node("Neg", ["x"], ["b"])], [], both)
    other = graph([helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Relu", ["x"], ["b"])], [], both)
    made = model(
        [helper.make_node("If", ["c"], ["y", "z"], then_branch=then, else_branch=other),
         helper.make_node("Add", ["y", "z"], ["sum"])],
        [tensor("x", F32, ["n"]), tensor("c", BOOL, [])], [tensor("sum", F32, ["n"])],
    )  # fmt: skip
    module = load_onnx(made)
    assert operators(module) == ["Conditional", "TupleItem", "TupleItem", "add"]
    x = np.array([-1, 2], np.float32)
    np.testing.assert_allclose(call(module, x, np.array(True))[0], np.exp(x) - x, 1e-6)
    np.testing.assert_allclose(call(module, x, np.array(False))[0], np.abs(x) + np.maximum(x, 0), 1e-6)


def test_a_condition_on_sizes_is_decided_when_it_can_be() -> None:
    nodes = [
        helper.make_node("Size", ["x"], ["n"]),
        helper.make_node("Less", ["n", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"],
                         then_branch=graph([helper.make_node("Exp", ["x"], ["a"])], [], [tensor("a", F32, ["n"])]),
                         else_branch=graph([helper.make_node("Abs", ["x"], ["a"])], [], [tensor("a", F32, ["n"])])),
    ]  # fmt: skip
    made = model(nodes, [tensor("x", F32, ["n"])], [tensor("y", F32, ["n"])], {"zero": np.array(0)})
    assert operators(load_onnx(made)) == ["abs"]


def test_loops_are_unrolled_and_collect_what_they_scan() -> None:
    body = graph(
        [helper.make_node("Add", ["v", "x"], ["w"]), helper.make_node("Identity", ["w"], ["seen"]),
         helper.make_node("Less", ["i", "two"], ["d"])],
        [tensor("i", I64, []), tensor("c", BOOL, []), tensor("v", F32, [2])],
        [tensor("d", BOOL, []), tensor("w", F32, [2]), tensor("seen", F32, [2])],
    )  # fmt: skip
    made = model(
        [helper.make_node("Loop", ["", "go", "x"], ["y", "all"], body=body)], [tensor("x", F32, [2])],
        [tensor("y", F32, [2]), tensor("all", F32, None)], {"go": np.array(True), "two": np.array(2)},
    )  # fmt: skip
    x = np.array([1, 10], np.float32)
    last, collected = run(made, x)
    np.testing.assert_array_equal(last, 4 * x)
    np.testing.assert_array_equal(collected, [2 * x, 3 * x, 4 * x])


def test_sequences_are_lists_while_the_model_is_read() -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["s"], axis=0),
        helper.make_node("SequenceAt", ["s", "last"], ["a"]),
        helper.make_node("SequenceErase", ["s", "last"], ["t"]),
        helper.make_node("SequenceInsert", ["t", "a", "first"], ["u"]),
        helper.make_node("ConcatFromSequence", ["u"], ["y"], axis=0),
        helper.make_node("SequenceLength", ["u"], ["n"]),
    ]
    made = model(
        nodes, [tensor("x", F32, [3, 2])], [tensor("y", F32, [3, 2]), tensor("n", I64, [])],
        {"last": np.array(-1), "first": np.array(0)},
    )  # fmt: skip
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    found, count = run(made, x)
    np.testing.assert_array_equal(found, np.roll(x, 1, 0))
    assert count == 3
