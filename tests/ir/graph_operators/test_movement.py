"""Operators that move, join, cut and make elements do as numpy does, with constant and with symbolic shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crossfarm as cf
from crossfarm import te
from crossfarm.errors import InvalidModule
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.operators import creation, joining, sequence, shape
from crossfarm.ir.graph.types import TensorType
from tests.ir.graph_operators.harness import Case, array, by_operator, check, check_all

N, M = Var("n", "int64"), Var("m", "int64")
DTYPES = ("float32", "bool", "int64", "float16", "bfloat16", "uint8")
NM = dims.mul(N, M)


def x(*extents: int, dtype: str = "float32", seed: int = 0) -> Any:
    return array(dtype, *extents, low=-40, high=40, seed=seed)


def shape_cases() -> Iterator[Case]:
    for dtype in DTYPES:
        yield Case("permute_dims", (x(2, 3, 4, dtype=dtype),), {"axes": (1, 2, 0)})
        yield Case("reshape", (x(2, 6, dtype=dtype),), {"shape": (3, 4)})
        yield Case("broadcast_to", (x(3, 1, dtype=dtype),), {"shape": (2, 3, 4)})
    for before, after in [
        ((2, 3, 4), (6, 4)), ((2, 3, 4), (2, 12)), ((2, 12), (2, 3, 4)), ((4, 6), (6, 4)), ((2, 3, 4), (24,)),
        ((), (1, 1)), ((1,), ()), ((0, 3), (3, 0, 2)), ((2, 1, 3), (1, 2, 3, 1)), ((4, 6, 5), (8, 3, 5)),
        ((2, 3, 4, 5), (2, 4, 3, 5)), ((2, 2, 3, 4, 5), (4, 6, 10)), ((2, 3, 5), (3, 2, 5)),
    ]:  # fmt: skip
        yield Case("reshape", (x(*before),), {"shape": after})
    sizes = {N: 3, M: 2}
    yield Case("reshape", (x(3, 2, 4),), {"shape": (NM, 4)}, shapes=((N, M, 4),), sizes=sizes)
    yield Case("reshape", (x(6, 4),), {"shape": (N, M, 2, 2)}, shapes=((NM, 4),), sizes=sizes)
    yield Case("reshape", (x(3, 12),), {"shape": (N, 3, 4)}, shapes=((N, 12),), sizes={N: 3})
    yield Case("reshape", (x(4, 3),), {"shape": (dims.mul(N, 2), 2)}, shapes=((4, N),), sizes={N: 3})
    yield Case("reshape", (x(3, 4, 2),), {"shape": (dims.mul(N, 4), M)}, shapes=((N, 4, M),), sizes=sizes)
    yield Case("reshape", (x(0, 2, 4),), {"shape": (NM, 4)}, shapes=((N, M, 4),), sizes={N: 0, M: 2})
    yield Case("reshape", (x(0, 4),), {"shape": (N, M, 4)}, shapes=((NM, 4),), sizes={N: 2, M: 0})
    yield Case("flatten", (x(2, 3, 4),))
    yield Case("flatten", (x(),))
    yield Case("flatten", (x(3, 2),), shapes=((N, M),), sizes=sizes)
    yield Case("permute_dims", (x(2, 3),))
    yield Case("permute_dims", (x(),))
    yield Case("permute_dims", (x(3, 2, 4),), {"axes": (-1, 0, 1)}, shapes=((N, M, 4),), sizes=sizes)
    yield Case("permute_dims", (x(3, 0),))
    yield Case("expand_dims", (x(2, 3),), {"axis": (0, -1)})
    yield Case("expand_dims", (x(),), {"axis": (0,)})
    yield Case("expand_dims", (x(3, 2),), {"axis": (1,)}, shapes=((N, 2),), sizes={N: 3})
    yield Case("squeeze", (x(1, 2, 1),))
    yield Case("squeeze", (x(1, 2, 1),), {"axis": (-1,)})
    yield Case("squeeze", (x(3, 1),), {"axis": (1,)}, shapes=((N, 1),), sizes={N: 3})
    yield Case("broadcast_to", (x(),), {"shape": (0, 3)})
    yield Case("broadcast_to", (x(3, 1),), {"shape": (M, N, 4)}, shapes=((N, 1),), sizes=sizes)
    for begin, end, stride in [(0, 5, 1), (1, 4, 2), (4, -1, -1), (3, 0, -2), (5, 5, 1), (2, 1, 1), (4, 4, -1)]:
        yield Case("strided_slice", (x(2, 5),), {"axes": (1,), "begin": (begin,), "end": (end,), "strides": (stride,)})
    yield Case("strided_slice", (x(4, 3, 5),), {"axes": (-1, 0), "begin": (1, 2), "end": (4, 4)})
    yield Case(
        "strided_slice", (x(3, 7),), {"axes": (1, 0), "begin": (1, 0), "end": (M, N), "strides": (2, 1)},
        shapes=((N, M),), sizes={N: 3, M: 7},
    )  # fmt: skip
    yield Case(
        "strided_slice", (x(7),), {"axes": (0,), "begin": (dims.sub(N, 1),), "end": (-1,), "strides": (-3,)},
        shapes=((N,),), sizes={N: 7},
    )  # fmt: skip
    for repeats in ((2, 1), (1, 3), (2, 1, 3), (2,), (0, 1)):
        yield Case("tile", (x(2, 3),), {"repeats": repeats})
    yield Case("tile", (x(3, 1),), {"repeats": (2, 3)}, shapes=((N, 1),), sizes={N: 3})
    yield Case("tile", (x(0, 2),), {"repeats": (2, 3)})
    for axis in (0, -1, None):
        yield Case("repeat", (x(2, 3),), {"repeats": 3, "axis": axis})
    yield Case("repeat", (x(2, 3),), {"repeats": 0, "axis": 0})
    yield Case("repeat", (x(3, 2),), {"repeats": 2}, shapes=((N, M),), sizes=sizes)
    yield Case("flip", (x(2, 5),), {"axis": 1})
    yield Case("flip", (x(3, 2),), {"axis": 0}, shapes=((N, 2),), sizes={N: 3})
    yield Case(
        "flip",
        (
            x(
                0,
            ),
        ),
        {"axis": 0},
    )
    for mode in ("DCR", "CRD"):
        yield Case("depth_to_space", (x(2, 8, 2, 3),), {"block": 2, "mode": mode})
        yield Case("depth_to_space", (x(3, 9, 2, 3),), {"block": 3, "mode": mode}, shapes=((N, 9, M, 3),), sizes=sizes)
    yield Case("space_to_depth", (x(2, 3, 4, 6),), {"block": 2})
    yield Case("space_to_depth", (x(3, 2, 4, 2),), {"block": 2}, shapes=((N, M, 4, 2),), sizes=sizes)


def joining_cases() -> Iterator[Case]:
    for dtype in DTYPES:
        yield Case("concat", (x(2, 3, dtype=dtype), x(2, 1, dtype=dtype, seed=1)), {"axis": 1})
        yield Case("stack", (x(2, 3, dtype=dtype), x(2, 3, dtype=dtype, seed=1)), {"axis": 1})
    yield Case("concat", (x(2), x(0), x(3, seed=1), x(1, seed=2)))
    yield Case("concat", (x(2, 3),), {"axis": -1})
    yield Case("concat", (x(0, 2), x(0, 2)))
    yield Case(
        "concat", (x(3, 2), x(2, 2, seed=1), x(3, 2, seed=2)), shapes=((N, 2), (M, 2), (N, 2)), sizes={N: 3, M: 2}
    )
    yield Case("concat", (x(0, 2), x(2, 2, seed=1)), shapes=((N, 2), (2, 2)), sizes={N: 0})
    yield Case("split", (x(2, 6),), {"sizes": (1, 3, 2), "axis": 1})
    yield Case("split", (x(4),), {"sizes": (4, 0)})
    yield Case("split", (x(3, 4),), {"sizes": (2, 2), "axis": -1}, shapes=((N, 4),), sizes={N: 3})
    yield Case("stack", (x(), x(seed=1), x(seed=2)))
    yield Case("stack", (x(0, 2), x(0, 2)), {"axis": -1})
    yield Case("stack", (x(3), x(3, seed=1)), {"axis": -1}, shapes=((N,), (N,)), sizes={N: 3})
    for mode in ("constant", "reflect", "edge", "wrap"):
        yield Case("nn.pad", (x(3, 4),), {"pad_width": (1, 2, 0, 3), "pad_mode": mode})
        yield Case("nn.pad", (x(3, 4),), {"pad_width": (7, 9, 0, 0), "pad_mode": mode})
        yield Case("nn.pad", (x(5, 4),), {"pad_width": (-1, 2, 1, -2), "pad_mode": mode})
        yield Case("nn.pad", (x(1, 4),), {"pad_width": (2, 1, 0, 1), "pad_mode": mode})
        yield Case("nn.pad", (x(4, 2),), {"pad_width": (1, 5, 0, 1), "pad_mode": mode}, shapes=((N, 2),), sizes={N: 4})
    yield Case("nn.pad", (x(4),), {"pad_width": (N, M)}, sizes={N: 3, M: 0})
    yield Case("nn.pad", (x(2, 2, dtype="int8"),), {"pad_width": (1, 1, 1, 1), "pad_value": -7})
    yield Case("nn.pad", (x(2, dtype="float16"),), {"pad_width": (1, 1), "pad_value": -np.inf})
    yield Case("nn.pad", (x(2, dtype="bool"),), {"pad_width": (1, 1), "pad_value": True})
    yield Case("nn.pad", (x(0, 2),), {"pad_width": (1, 1, 0, 0), "pad_value": 3.5})
    yield Case("nn.pad", (x(),), {"pad_width": ()})


def creation_cases() -> Iterator[Case]:
    for dtype in (*DTYPES, "float64", "int8"):
        yield Case("full", (), {"shape": (2, 3), "value": 1, "dtype": dtype})
        yield Case("full_like", (x(2, 3, dtype=dtype),), {"value": 0})
    yield Case("full", (), {"shape": (N, 3), "value": float("-inf")}, sizes={N: 2})
    yield Case("full", (), {"shape": (), "value": 0.1, "dtype": "float16"})
    yield Case("full_like", (x(3),), {"value": 2.5}, shapes=((N,),), sizes={N: 3})
    for dtype in ("float32", "float16", "bfloat16", "int64", "int8", "uint8"):
        yield Case("arange", (), {"start": 2, "stop": 11, "step": 3, "dtype": dtype})
        yield Case("arange", (), {"start": 9, "stop": 0, "step": -2, "dtype": dtype})
    yield Case("arange", (), {"start": 0, "stop": 1, "step": 0.1})
    yield Case("arange", (), {"start": 3, "stop": 3, "dtype": "int32"})
    for axis in (0, -1):
        yield Case("iota", (), {"shape": (2, 3), "axis": axis, "dtype": "float16"})
        yield Case("iota", (), {"shape": (N, 3), "axis": axis}, sizes={N: 4})
    yield Case("eye", (), {"n": 3})
    yield Case("eye", (), {"n": 3, "m": 4, "k": -1, "dtype": "int64"})
    yield Case("eye", (), {"n": 2, "m": 5, "k": 2, "dtype": "bool"})
    yield Case("shape_to_tensor", (), {"shape": (2, 3, 4)})
    yield Case("shape_to_tensor", (), {"shape": (N, dims.add(NM, 1), 7)}, sizes={N: 2, M: 3})
    yield Case("shape_to_tensor", (), {"shape": ()})
    for upper in (True, False):
        for k in (-1, 0, 2):
            yield Case("trilu", (x(2, 3, 4),), {"k": k, "upper": upper})
    yield Case("trilu", (x(3, 2, dtype="bool"),), shapes=((N, M),), sizes={N: 3, M: 2})
    yield Case("trilu", (x(0, 3),))


def sequence_cases() -> Iterator[Case]:
    for lengths in ([4, 1, 0], [2, 3, 4]):
        for dtype in ("int64", "int32"):
            yield Case("reverse_sequence", (x(4, 3, 2), np.array(lengths, dtype)))
    given = (x(3, 4), np.array([4, 1, 3]))
    yield Case("reverse_sequence", given, {"time_axis": 1, "batch_axis": 0})
    yield Case("reverse_sequence", given, {"time_axis": -1, "batch_axis": 0}, shapes=((N, M), (N,)), sizes={N: 3, M: 4})
    yield Case("reverse_sequence", (x(0, 3), np.array([0, 0, 0])))
    for exclusive in (False, True):
        for reverse in (False, True):
            attrs = {"axis": 1, "exclusive": exclusive, "reverse": reverse}
            for dtype in ("float32", "int64", "float16"):
                yield Case("cumsum", (array(dtype, 2, 5, 3),), attrs)
            yield Case("cumsum", (array("int32", 2, 300),), attrs)
            yield Case("cumsum", (array("int64", 2, 130),), attrs, shapes=((N, M),), sizes={N: 2, M: 130})
    yield Case("cumsum", (array("float32", 3, 4),))
    yield Case("cumsum", (array("int8", 3, 4, low=90, high=100),), {"axis": 0, "dtype": "int64"})
    yield Case("cumsum", (array("int32", 3, 4),), {}, shapes=((N, 4),), sizes={N: 3})
    yield Case("cumsum", (array("float32", 0, 4),), {"axis": 0})
    yield Case("cumsum", (array("float32", 0, 4),), {"axis": 0}, shapes=((N, 4),), sizes={N: 0})


CASES = [*shape_cases(), *joining_cases(), *creation_cases(), *sequence_cases()]


@by_operator(CASES)
def test_operators_are_numpys(cases: list[Case]) -> None:
    check_all(cases)


def test_every_row_has_a_case() -> None:
    rows = {row.name for family in (shape, joining, creation, sequence) for row in family.OPERATORS}
    assert rows == {case.operator for case in CASES}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 4, 6]), max_size=4), st.randoms(use_true_random=False))
def test_any_shape_becomes_any_other_of_as_many_elements(before: list[int], random: Any) -> None:
    left, after = int(np.prod(before, dtype=np.int64)), []
    while left > 1:
        after.append(random.choice([d for d in range(1, left + 1) if left % d == 0]))
        left //= after[-1]
    check(Case("reshape", (x(*before),), {"shape": tuple(after)}))


def test_dimensions_that_a_reshape_keeps_keep_their_index() -> None:
    row = operators.get("reshape")
    given = te.placeholder((N, 12, 64, 8, 8), name="x")
    attrs = row.complete({"shape": (N, 768, 4, 2, 8)})
    (kept,) = row.compute([given], attrs, row.infer([TensorType(dims.dims(given.shape), "float32")], attrs))
    script = cf.IRModule({"main": te.create_prim_func([given, kept])}).script()
    assert "x[v_i0, v_i1 // T.int64(64), v_i1 % T.int64(64), v_i2 * T.int64(2) + v_i3, v_i4]" in script


def tensor(dtype: str, *extents: dims.Dim) -> TensorType:
    return TensorType(dims.dims(extents), dtype)


F32 = tensor("float32", 2, 3)


@pytest.mark.parametrize(
    ("name", "inputs", "attrs", "message"),
    [
        ("reshape", [F32], {"shape": (4, 2)}, "operator reshape: (2, 3) has 6 elements, (4, 2) has 8"),
        ("reshape", [tensor("float32", N, 3)], {"shape": (N, 4)}, "operator reshape: (n, 3) has n * 3 elements"),
        ("reshape", [F32], {"shape": (3, -1)}, "operator reshape: shape (3, -1) has the dimension -1"),
        ("permute_dims", [F32], {"axes": (0,)}, "operator permute_dims: axes (0,) do not name each of 2 dimensions"),
        ("squeeze", [F32], {"axis": (0,)}, "operator squeeze: dimension 0 of (2, 3) is not known to be 1"),
        ("broadcast_to", [F32], {"shape": (2, 1)}, "operator broadcast_to: (2, 3) does not stretch to (2, 1)"),
        ("strided_slice", [F32], {"axes": (1,), "begin": (0,), "end": (4,)}, "operator strided_slice: slice 0:4:1 leaves dimension 1 of (2, 3)"),  # noqa: E501
        ("concat", [F32, tensor("float32", 3, 3)], {"axis": 1}, "operator concat: float32(2, 3) and float32(3, 3) differ outside of dimension 1"),  # noqa: E501
        ("concat", [F32, tensor("int32", 2, 3)], {}, "operator concat: tensors must be of one dtype, not float32(2, 3) and int32(2, 3)"),  # noqa: E501
        ("concat", [], {}, "operator concat: there are no tensors to join"),
        ("split", [F32], {"sizes": (1, 1), "axis": 1}, "operator split: parts of (1, 1) do not make up dimension 1 of float32(2, 3)"),  # noqa: E501
        ("stack", [F32, tensor("float32", 2, 4)], {}, "operator stack: float32(2, 3) and float32(2, 4) differ"),
        ("nn.pad", [F32], {"pad_width": (1, 1)}, "operator nn.pad: float32(2, 3) has 4 ends, but pad_width is (1, 1)"),
        ("nn.pad", [tensor("int8", 2)], {"pad_width": (1, 1), "pad_value": 0.5}, "operator nn.pad: 0.5 is not a value of int8"),  # noqa: E501
        ("full", [], {"shape": (2,), "value": 300, "dtype": "uint8"}, "operator full: 300 does not fit uint8 (0 to 255)"),  # noqa: E501
        ("arange", [], {"start": 0, "stop": 3, "step": 0}, "operator arange: steps of 0 in float32 count nothing"),
        ("depth_to_space", [tensor("float32", 1, 6, 2, 2)], {"block": 2}, "operator depth_to_space: 6 channels are no multiple of 4"),  # noqa: E501
        ("trilu", [tensor("float32", 3)], {}, "operator trilu: it takes matrices, not float32(3)"),
        ("reverse_sequence", [F32, tensor("int64", 2)], {}, "operator reverse_sequence: sequence_lens, int64(2), is not one for each of dimension 1 of float32(2, 3)"),  # noqa: E501
        ("cumsum", [tensor("bool", 3)], {"axis": 0}, "operator cumsum: it takes numbers, not bool(3)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(
    name: str, inputs: list[TensorType], attrs: dict[str, Any], message: str
) -> None:
    row = operators.get(name)
    with pytest.raises(InvalidModule) as refused:
        row.infer(inputs, row.complete(attrs))
    assert message in refused.value.message
