"""Integer reasoning is right wherever it gives an answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler_service.passes.simplify import Simplifier
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Analyzer, Interval, affine, fold_int
from crossfarm.ir.expr import Binary, Call, Cast, Expr, IntImm, Select, Var
from crossfarm.ir.interpreter import arithmetic

OPS = ("add", "sub", "mul", "floordiv", "floormod", "div", "mod", "min", "max")
VARS = (Var("x", "int32"), Var("y", "int32"), Var("z", "int32"))
RANGES = {VARS[0]: (0, 7), VARS[1]: (-5, 5), VARS[2]: (0, 1 << 30)}


def value_of(expr: Expr, env: dict[Var, int]) -> int:
    """The interpreter's value of a small expression; raises DivisionByZero as it does."""
    match expr:
        case Var():
            return env[expr]
        case IntImm(value, _):
            return value
        case Binary("and", a, b):
            return value_of(a, env) and value_of(b, env)
        case Select(c, a, b) | Call("if_then_else", (c, a, b), _):
            return value_of(a if value_of(c, env) else b, env)
        case Cast(value, dtype):
            return int(dt.to_numpy(dtype).type(value_of(value, env)))
        case Binary(op, a, b):
            to = dt.to_numpy(a.dtype).type
            with np.errstate(all="ignore"):
                return int(arithmetic.binary(op, a.dtype)(to(value_of(a, env)), to(value_of(b, env))))
    raise AssertionError(expr)


def expressions() -> st.SearchStrategy[Expr]:
    constants = st.one_of(st.integers(-9, 9), st.sampled_from([-(2**31), 2**31 - 1, 64, 1000])).map(IntImm)
    leaves = st.one_of(st.sampled_from(VARS), constants)

    def extend(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        binary = st.builds(Binary, st.sampled_from(OPS), inner, inner)
        condition = st.builds(Binary, st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]), inner, inner)
        guarded = st.builds(lambda c, a, b: Call("if_then_else", (c, a, b), "int32"), condition, inner, inner)
        return st.one_of(binary, guarded)

    return st.recursive(leaves, extend, max_leaves=8)


environments = st.fixed_dictionaries({v: st.integers(*r) for v, r in RANGES.items()})


def analyzer() -> Analyzer:
    known = Analyzer()
    for var, (low, high) in RANGES.items():
        known.bind(var, Interval(low, high))
    return known


@settings(max_examples=300, deadline=None)
@given(expressions(), environments)
def test_bounds_hold_and_simplification_keeps_every_value(expr: Expr, env: dict[Var, int]) -> None:
    simple = Simplifier(analyzer()).mutate(expr)
    try:
        value = value_of(expr, env)
    except arithmetic.DivisionByZero:
        with pytest.raises(arithmetic.DivisionByZero):
            value_of(simple, env)
        return
    assert value in analyzer().bounds(expr)
    assert value_of(simple, env) == value


@settings(max_examples=300, deadline=None)
@given(expressions(), expressions(), expressions(), environments)
def test_what_is_proved_under_a_condition_holds(a: Expr, b: Expr, c: Expr, env: dict[Var, int]) -> None:
    condition, claim = Binary("lt", a, b), Binary("le", a, c)
    try:
        holds, claimed = value_of(condition, env), value_of(claim, env)
    except arithmetic.DivisionByZero:
        return
    known = analyzer()
    known.assume(condition, bool(holds))
    assert not known.is_contradictory()
    decided = known.decide(claim)
    assert decided is None or decided == bool(claimed)


@pytest.mark.parametrize("dtype", [*dt.INTS, *dt.UINTS])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_constants_fold_as_the_interpreter_computes(dtype: str, data: st.DataObject) -> None:
    low, high = dt.int_range(dtype)
    numbers = st.one_of(st.sampled_from([low, high, 0, 1]), st.integers(low, high))
    a, b = data.draw(numbers), data.draw(numbers)
    for op in (*OPS, "bitand", "bitor", "bitxor", "eq", "lt"):
        folded = fold_int(op, a, b, dtype)
        if folded is None:
            assert b == 0
            continue
        assert folded == value_of(Binary(op, IntImm(a, dtype), IntImm(b, dtype)), {})


def test_an_index_below_a_symbolic_size_is_proved_in_its_loop() -> None:
    i, n = Var("i"), Var("n")
    known = Analyzer()
    known.bind(n, Interval(0, 2**31 - 1))
    with known.scope():
        known.bind_loop(i, IntImm(0), n)
        assert known.prove(Binary("lt", i, n))
        assert known.prove(Binary("ge", Binary("sub", n, i), IntImm(1)))
        assert known.decide(Binary("lt", Binary("add", i, IntImm(1)), n)) is None
    assert known.decide(Binary("lt", i, n)) is None


def test_a_fact_about_a_product_that_wraps_around_is_not_one_about_the_exact_product() -> None:
    x = VARS[0]
    product = Binary("mul", Binary("sub", x, IntImm(64)), Select(Binary("lt", x, x), x, IntImm(2**31 - 1)))
    known = analyzer()
    known.assume(Binary("ge", product, x))  # so it is for x = 0: the product is 64
    assert known.decide(Binary("le", product, x)) is None


def test_an_affine_form_reads_as_a_sum() -> None:
    x, y = VARS[0], VARS[1]
    form = affine(Binary("sub", Binary("mul", Binary("add", x, IntImm(3)), IntImm(4)), Binary("add", y, x)))
    assert (form.constant, form.terms) == (12, {x: 3, y: -1})
