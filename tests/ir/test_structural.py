"""Structural equality, hash and difference agree, and see what counts and nothing else."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfarm.ir.expr import Expr, FloatImm, IntImm, Var
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import Evaluate, For, SeqStmt
from crossfarm.ir.structural import explain_difference, structural_equal, structural_hash
from tests.conftest import ROOT
from tests.ir.programs import axis, buffer, f32, i32, load, loop, module, op, root, row_sums, scaled, store


def same(a: object, b: object) -> bool:
    """Equality, with its promise that hash and difference say the same."""
    equal = structural_equal(a, b)
    assert structural_equal(b, a) == equal
    assert (explain_difference(a, b) is None) == equal
    if equal:
        assert structural_hash(a) == structural_hash(b)
    return equal


def test_names_of_variables_and_buffers_do_not_count() -> None:
    assert same(scaled(), scaled(names=("X", "Y", "j")))


def test_the_modules_name_and_the_order_of_functions_do_not_count() -> None:
    f, g = scaled()["main"], row_sums()["main"]
    assert same(IRModule({"f": f, "g": g}), IRModule({"g": g, "f": f}, name="Other"))


def test_block_names_constants_attributes_and_function_names_count() -> None:
    assert not same(scaled(), scaled(block="C"))
    assert not same(scaled(2.0), scaled(3.0))
    assert not same(scaled(), IRModule({"other": scaled()["main"]}))
    plain = scaled()["main"]
    assert not same(plain, replace(plain, attrs={}))
    assert not same(plain, replace(plain, attrs={"tir.noalias": 1}))
    assert not same(plain, replace(plain, private=True))


@pytest.mark.parametrize("changes", [
    {"dtype": "float64"}, {"scope": "shared"}, {"align": 16}, {"strides": (i32(1),)}, {"elem_offset": i32(4)},
    {"shape": (i32(5),)},
])  # fmt: skip
def test_everything_about_a_buffer_but_its_name_counts(changes: dict[str, object]) -> None:
    a = buffer("A", 4)
    assert not same(module(SeqStmt(()), a), module(SeqStmt(()), replace(a, **changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [
    {"kind": "parallel"}, {"kind": "thread_binding", "thread": "threadIdx.x"}, {"annotations": {"k": 1}},
    {"extent": i32(5)}, {"min": i32(1)},
])  # fmt: skip
def test_everything_about_a_loop_but_its_variables_name_counts(changes: dict[str, object]) -> None:
    plain = loop(Var("i"), 4, SeqStmt(()))
    assert not same(plain, replace(plain, **changes))  # type: ignore[arg-type]
    assert same(plain, replace(plain, var=Var("j")))


def test_the_order_of_keys_in_annotations_does_not_count() -> None:
    a = For(Var("i"), i32(0), i32(4), SeqStmt(()), annotations={"x": 1, "y": (2, None)})
    b = For(Var("i"), i32(0), i32(4), SeqStmt(()), annotations={"y": (2, None), "x": 1})
    assert same(a, b)


def test_which_variable_is_used_counts() -> None:
    i, j = Var("i"), Var("j")
    a = buffer("A", 4, 4)
    ij = module(loop(i, 4, loop(j, 4, store(a, f32(0), i, j))), a)
    ji = module(loop(i, 4, loop(j, 4, store(a, f32(0), j, i))), a)
    assert not same(ij, ji)


def test_free_variables_map_consistently_and_one_to_one() -> None:
    x, y, z = Var("x"), Var("y"), Var("z")
    assert same(op("add", x, y), op("add", y, z))
    assert not same(op("add", x, x), op("add", x, y))
    assert not same(op("add", x, y), op("add", x, x))
    assert not same(x, Var("x", "int64"))


def test_nan_equals_itself_and_negative_zero_differs_from_zero() -> None:
    assert same(FloatImm(math.nan), FloatImm(-math.nan))
    assert not same(f32(0.0), f32(-0.0))
    assert not same(IntImm(1, "int32"), IntImm(1, "int64"))
    assert not same(IntImm(1, "int32"), f32(1))


def test_a_difference_is_told_with_its_path() -> None:
    told = explain_difference(scaled(2.0), scaled(3.0))
    assert told is not None
    assert told.startswith("main.body.block.body.body.block.body.value.b: ")
    assert "2.0" in told
    assert "3.0" in told
    a, b = buffer("A", 4), buffer("B", 4)
    told = explain_difference(Evaluate(op("add", load(a, 0), load(a, 1))), Evaluate(op("add", load(a, 0), load(b, 1))))
    assert told is not None
    assert "value.b.buffer" in told


def test_very_deep_programs_do_not_exhaust_the_stack() -> None:
    def chain(last: float) -> Expr:
        e: Expr = f32(last)
        for _ in range(20_000):
            e = op("add", f32(1), e)
        return e

    assert same(chain(1), chain(1))
    assert not same(chain(1), chain(2))


def test_the_hash_is_the_same_in_every_process() -> None:
    code = "from tests.ir.programs import scaled; from crossfarm.ir.structural import structural_hash as h;"
    run = subprocess.run(
        [sys.executable, "-c", f"{code} print(h(scaled()))"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert int(run.stdout) == structural_hash(scaled()) < 1 << 64


leaves = st.one_of(
    st.integers(-5, 5).map(i32), st.sampled_from([Var("x"), Var("y"), Var("z")]), st.floats(width=32).map(f32)
)
expressions = st.recursive(
    leaves, lambda e: st.tuples(st.sampled_from(["add", "mul", "lt"]), e, e).map(lambda t: op(*t)), max_leaves=12
)


@given(expressions, expressions)
def test_equal_or_different_all_three_agree(a: Expr, b: Expr) -> None:
    same(a, b)
    assert same(a, a)


def test_the_same_program_built_twice_is_equal() -> None:
    assert same(row_sums(), row_sums())
    assert not same(row_sums(3), row_sums(4))
    a, b = axis("v", 4), axis("w", 4)
    assert same(a, b)
    assert not same(a, axis("v", 4, "reduce"))
    assert same(root(SeqStmt(())), root(SeqStmt(())))
