"""Dimensions: their normal form says the same number, and numbers are numbers at every depth."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfarm.errors import InvalidModule
from crossfarm.ir.arith import fold_int
from crossfarm.ir.expr import Binary, Expr, IntImm, Var
from crossfarm.ir.graph import dims
from crossfarm.ir.visitor import substitute

N, M = Var("n", "int64"), Var("m", "int64")
_LEAVES = st.one_of(st.sampled_from([N, M]), st.integers(-9, 9).map(lambda v: IntImm(v, "int64")))
EXPRESSIONS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(Binary, st.sampled_from(["add", "sub", "mul", "min", "max"]), inner, inner),
        st.builds(
            Binary,
            st.sampled_from(["floordiv", "floormod"]),
            inner,
            st.integers(1, 6).map(lambda v: IntImm(v, "int64")),
        ),
    ),
    max_leaves=8,
)


def value_of(expr: Expr) -> int:
    if isinstance(expr, IntImm):
        return expr.value
    assert isinstance(expr, Binary)
    value = fold_int(expr.op, value_of(expr.a), value_of(expr.b), "int64")
    assert value is not None
    return value


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS, st.integers(0, 20), st.integers(0, 20))
def test_the_normal_form_is_the_same_number(expr: Expr, n: int, m: int) -> None:
    sizes: dict[Var, Expr] = {N: IntImm(n, "int64"), M: IntImm(m, "int64")}
    given_sizes = substitute(expr, sizes)
    assert value_of(substitute(dims.dim(expr), sizes)) == value_of(given_sizes)
    assert dims.constant(dims.dim(given_sizes)) == value_of(given_sizes)


def test_what_surely_divides_is_divided() -> None:
    assert dims.constant(dims.floordiv(7, 2)) == 3
    assert dims.same(dims.floordiv(dims.mul(N, 4), 2), dims.mul(N, 2))
    assert dims.same(dims.floordiv(dims.add(dims.mul(N, 2), 5), 2), dims.add(N, 2))
    assert dims.same(dims.ceildiv(dims.mul(N, 8), 8), N)
    assert dims.same(dims.minimum(dims.add(N, 1), dims.sub(N, -1)), dims.add(N, 1))
    assert not dims.same(dims.floordiv(N, 2), N)


def test_a_formula_has_an_end() -> None:
    size: dims.Dim = N
    for _ in range(5):  # forty would be a tree of 2^40 nodes
        size = dims.add(dims.mul(size, size), 1)
    with pytest.raises(InvalidModule, match="a size is a formula of more than 256"):
        dims.product([dims.add(size, step) for step in range(5)])
