"""Checked constructors: literals fit their dtype, operands are unified, nonsense is refused."""

from __future__ import annotations

import math

import pytest

from crossfarm.errors import InvalidModule
from crossfarm.ir import ops
from crossfarm.ir.expr import Binary, Broadcast, Cast, FloatImm, IntImm, Var

I32, I64, F32, F16, U8, BOOL = (Var("v", dtype) for dtype in ("int32", "int64", "float32", "float16", "uint8", "bool"))


def test_a_literal_has_the_default_dtype_of_its_python_type() -> None:
    assert [ops.const(v).dtype for v in (True, 1, 2**31, -(2**31), 1.0)] == [
        "bool",
        "int32",
        "int64",
        "int32",
        "float32",
    ]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(128, "int8"), (-1, "uint8"), (2**64, "uint64"), (2**63, None), (2, "bool"), (0.5, "int32"), (math.inf, "int32"),
     (1, "handle")],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused(value: float, dtype: str | None) -> None:
    with pytest.raises(InvalidModule):
        ops.const(value, dtype)


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        (I32, 1, "int32"), (1, I64, "int64"), (F16, 1, "float16"), (F16, 1.5, "float16"), (I32, 1.5, "float32"),
        (I32, I64, "int64"), (I64, F32, "float32"), (F16, F32, "float32"), (U8, I32, "int32"), (BOOL, I32, "int32"),
        (Var("a", "uint32"), Var("b", "int32"), "int32"), (Var("a", "uint8"), Var("b", "uint64"), "uint64"),
        (Var("a", "float16"), Var("b", "bfloat16"), "float32"), (Var("a", "float32x4"), F16, "float32x4"),
        (BOOL, 1, "int32"), (U8, True, "uint8"),
    ],
)  # fmt: skip
def test_two_operands_meet_in_one_dtype(a: ops.Operand, b: ops.Operand, dtype: str) -> None:
    x, y = ops.unify(a, b)
    assert (x.dtype, y.dtype) == (dtype, dtype)


def test_casting_a_literal_gives_a_literal_and_casting_to_itself_nothing() -> None:
    assert isinstance(ops.cast(ops.const(3), "int64"), IntImm)
    assert isinstance(ops.cast(ops.const(3), "float16"), FloatImm)
    assert isinstance(ops.cast(ops.const(300), "int8"), Cast)
    assert ops.cast(I32, "int32") is I32


def test_a_vector_is_cast_by_its_element() -> None:
    value = ops.cast(Broadcast(I32, 4), "float32x4")
    assert isinstance(value, Broadcast)
    assert isinstance(value.value, Cast)


@pytest.mark.parametrize(
    ("op", "a", "b"),
    [("floordiv", F32, F32), ("mod", F32, 1.0), ("shl", F32, 1), ("bitand", F32, F32), ("and", I32, BOOL),
     ("add", BOOL, BOOL), ("add", Var("h", "handle"), I32), ("add", Var("a", "int32x4"), Var("b", "int32x8")),
     ("add", Var("h", "handle"), Var("g", "handle"))],
)  # fmt: skip
def test_an_operator_on_the_wrong_kind_is_refused(op: str, a: ops.Operand, b: ops.Operand) -> None:
    with pytest.raises(InvalidModule):
        ops.binary(op, a, b)


def test_comparison_and_logic_give_bool() -> None:
    assert ops.compare("lt", I32, I64).dtype == "bool"
    assert ops.compare("lt", Var("a", "int32x4"), 1).dtype == "boolx4"
    assert ops.logical_and(BOOL, BOOL, True).dtype == "bool"
    with pytest.raises(InvalidModule, match="not a comparison"):
        ops.compare("add", I32, I32)


def test_no_conditions_are_all_true_and_none_is_any() -> None:
    all_of, any_of = ops.logical_and(), ops.logical_or()
    assert isinstance(all_of, IntImm)
    assert isinstance(any_of, IntImm)
    assert (all_of.value, any_of.value) == (1, 0)


def test_a_negated_value_is_a_literal_or_a_product() -> None:
    assert isinstance(ops.negative(ops.const(3)), IntImm)
    value = ops.negative(F32)
    assert isinstance(value, Binary)
    assert value.op == "mul"
    unsigned = ops.negative(U8)
    assert isinstance(unsigned, Binary)
    assert unsigned.op == "sub"


@pytest.mark.parametrize(
    ("name", "args"),
    [("nothing", (F32,)), ("exp", ()), ("exp", (I32,)), ("popcount", (F32,)), ("abs", (BOOL,)), ("reinterpret", (F32,)),
     ("abs", (Var("h", "handle"),))],
)  # fmt: skip
def test_an_intrinsic_outside_its_domain_is_refused(name: str, args: tuple[ops.Operand, ...]) -> None:
    with pytest.raises(InvalidModule):
        ops.call_intrin(name, *args)


def test_an_intrinsic_has_the_dtype_its_row_says() -> None:
    assert ops.call_intrin("exp", F16).dtype == "float16"
    assert ops.call_intrin("isnan", F16).dtype == "bool"
    assert ops.call_intrin("clz", I64).dtype == "int32"
    assert ops.call_intrin("pow", F16, 2).dtype == "float16"
    assert ops.call_intrin("if_then_else", BOOL, F32, 1).dtype == "float32"
    assert ops.call_intrin("reinterpret", F32, dtype="int32").dtype == "int32"
    assert ops.call_intrin("floor", I32) is I32
