"""The meaning of every operator, cast and intrinsic, against Python's integers and floats, as lanes and one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crossfarm.errors import ProgramError
from crossfarm.ir import dtype as dt
from crossfarm.ir import interpreter
from crossfarm.ir.expr import COMPARISONS, Call, Cast, Expr, Select, StringImm, Var
from crossfarm.ir.intrinsics import EXTERN_ALLOWED, INTRINSICS
from crossfarm.ir.verify import verify
from tests.ir.programs import buffer, load, loop, module, op, store

Array = np.ndarray[Any, Any]
ALL_INTS = (*dt.INTS, *dt.UINTS)
#: Each example compiles a program, so a few examples with many elements.
LANES = 64
few = settings(max_examples=8)


def evaluate(make: Callable[..., Expr], *arrays: Array, result: str) -> Array:
    """``make(element of each array)`` for each element: once as lanes, once step by step, which must agree."""
    i = Var("i")
    inputs = [buffer(f"A{n}", a.size, dtype=dt.from_numpy(a.dtype)) for n, a in enumerate(arrays)]
    out = buffer("C", arrays[0].size, dtype=result)
    mod = module(loop(i, arrays[0].size, store(out, make(*(load(b, i) for b in inputs)), i)), *inputs, out)
    verify(mod)
    results = []
    for in_order in (False, True):
        c = np.zeros(arrays[0].size, dt.to_numpy(result))
        interpreter.run(mod, "main", [*arrays, c], in_order=in_order)
        results.append(c)
    assert results[0].tobytes() == results[1].tobytes() or np.isnan(results[0].astype(float)).any()
    return results[0]


def wrap(value: int, dtype: str) -> int:
    low, high = dt.int_range(dtype)
    return (value - low) % (high - low + 1) + low


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


INTEGER_MEANING: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda a, b, bits: a + b,
    "sub": lambda a, b, bits: a - b,
    "mul": lambda a, b, bits: a * b,
    "div": lambda a, b, bits: truncated(a, b),
    "mod": lambda a, b, bits: a - truncated(a, b) * b,
    "floordiv": lambda a, b, bits: a // b,
    "floormod": lambda a, b, bits: a % b,
    "min": lambda a, b, bits: min(a, b),
    "max": lambda a, b, bits: max(a, b),
    "bitand": lambda a, b, bits: a & b,
    "bitor": lambda a, b, bits: a | b,
    "bitxor": lambda a, b, bits: a ^ b,
    "shl": lambda a, b, bits: a << (b % bits),
    "shr": lambda a, b, bits: a >> (b % bits),
}
COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def integers(dtype: str) -> st.SearchStrategy[Array]:
    low, high = dt.int_range(dtype)
    edges = st.sampled_from([low, low + 1, -1 if low else 1, 0, 1, 2, high - 1, high])
    return st.lists(edges | st.integers(low, high), min_size=LANES, max_size=LANES).map(
        lambda v: np.array(v, dt.to_numpy(dtype))
    )


@pytest.mark.parametrize("dtype", ALL_INTS)
@pytest.mark.parametrize("name", INTEGER_MEANING)
@given(data=st.data())
@few
def test_integer_operators(name: str, dtype: str, data: st.DataObject) -> None:
    a, b = data.draw(integers(dtype)), data.draw(integers(dtype))
    if name in ("div", "mod", "floordiv", "floormod"):
        b[b == 0] = 1
    found = evaluate(lambda x, y: op(name, x, y), a, b, result=dtype)
    want = [wrap(INTEGER_MEANING[name](int(x), int(y), dt.bits(dtype)), dtype) for x, y in zip(a, b)]
    assert found.tolist() == want


@pytest.mark.parametrize("dtype", dt.SCALARS)
@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name: str, dtype: str) -> None:
    values = [0, 1, 1, 0] if dtype == "bool" else [0, 1, 100, 3]
    a, b = np.array(values, dt.to_numpy(dtype)), np.array(values[::-1], dt.to_numpy(dtype))
    found = evaluate(lambda x, y: op(name, x, y), a, b, result="bool")
    assert found.tolist() == [COMPARED[name](x, y) for x, y in zip(values, values[::-1])]


def test_comparisons_with_nan_are_false_but_for_inequality() -> None:
    a, b = np.array([math.nan, 1.0], "float32"), np.array([1.0, math.nan], "float32")
    for name in COMPARISONS:
        assert evaluate(lambda x, y: op(name, x, y), a, b, result="bool").tolist() == [name == "ne"] * 2  # noqa: B023


@pytest.mark.parametrize("name", ["div", "mod", "floordiv", "floormod"])
@pytest.mark.parametrize("in_order", [False, True])
def test_a_zero_divisor_is_the_programs_error(name: str, in_order: bool) -> None:
    a, b, i = buffer("A", 4, dtype="int32"), buffer("B", 4, dtype="int32"), Var("i")
    mod = module(loop(i, 4, store(a, op(name, load(a, i), load(b, i)), i)), a, b)
    with pytest.raises(ProgramError, match="integer division by zero in function 'main'"):
        interpreter.run(mod, "main", [np.ones(4, "int32"), np.array([1, 2, 0, 4], "int32")], in_order=in_order)


def floats(dtype: str) -> st.SearchStrategy[Array]:
    width = {"float16": 16, "float32": 32, "float64": 64}.get(dtype, 32)
    return hnp.arrays(f"float{width}", LANES, elements=st.floats(width=width)).map(  # type: ignore[arg-type]
        lambda a: a.astype(dt.to_numpy(dtype))
    )


FLOAT_MEANING: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": lambda a, b: np.where(a < b, a, b),
    "max": lambda a, b: np.where(a > b, a, b),
}


@pytest.mark.parametrize("dtype", dt.FLOATS)
@pytest.mark.parametrize("name", FLOAT_MEANING)
@given(data=st.data())
@few
def test_float_operators_round_to_their_dtype(name: str, dtype: str, data: st.DataObject) -> None:
    a, b = data.draw(floats(dtype)), data.draw(floats(dtype))
    found = evaluate(lambda x, y: op(name, x, y), a, b, result=dtype)
    wide = np.float64 if dtype == "float64" else np.float32
    with np.errstate(all="ignore"):
        want = FLOAT_MEANING[name](a.astype(wide), b.astype(wide)).astype(dt.to_numpy(dtype))
    np.testing.assert_array_equal(found.astype(np.float64), want.astype(np.float64))


def converted(value: Any, target: str) -> Any:
    """A cast by C's rules, in Python."""
    if target == "bool":
        return value != 0
    if dt.is_float(target):
        with np.errstate(all="ignore"):
            return float(np.float64(value).astype(dt.to_numpy(target)))
    if isinstance(value, float):
        low, high = dt.int_range(target)
        return 0 if math.isnan(value) else int(min(max(value, low), high)) if math.isfinite(value) else (
            high if value > 0 else low)  # fmt: skip
    return wrap(int(value), target)


@pytest.mark.parametrize("target", dt.SCALARS)
@pytest.mark.parametrize("source", dt.SCALARS)
def test_casts(source: str, target: str) -> None:
    if source == "bool":
        values: list[Any] = [False, True]
    elif dt.is_float(source):
        values = [0.0, -0.0, 1.5, -1.5, 2.5, 100.75, -300.25, 7e4, -7e4, 3e38, -3e38, math.inf, -math.inf, math.nan]
    else:
        low, high = dt.int_range(source)
        values = [0, 1, 2, 100, low, low + 1, high - 1, high]
    with np.errstate(all="ignore"):
        a = np.array(values).astype(dt.to_numpy(source))
    found = evaluate(lambda x: Cast(x, target), a, result=target)
    for x, y in zip(a, found):
        given_value = float(x) if dt.is_float(source) else int(x)
        want = converted(given_value, target)
        assert y == want or (math.isnan(float(y)) and math.isnan(want)), (x, y, want)


def exactly(function: Callable[..., float]) -> Callable[..., float]:
    def safe(*args: float) -> float:
        try:
            return function(*args)
        except (ValueError, OverflowError, ZeroDivisionError):
            return math.nan

    return safe


FUNCTIONS: dict[str, Callable[..., float]] = {
    **{n: getattr(math, n) for n in (
        "exp", "exp2", "log", "log2", "log10", "log1p", "sqrt", "tanh", "erf", "sin", "cos", "tan", "asin", "acos",
        "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "floor", "ceil", "trunc", "pow", "atan2", "fmod", "hypot",
        "copysign",
    ) if hasattr(math, n)},
    "abs": abs,
    "atanh": lambda x: math.copysign(math.inf, x) if abs(x) == 1 else math.atanh(x),
    "exp10": lambda x: 10.0**x,
    "rsqrt": lambda x: 1 / math.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "round": lambda x: math.copysign(math.floor(abs(x) + 0.5), x),
    "nearbyint": round,
    "fma": lambda a, b, c: float(Fraction(a) * Fraction(b) + Fraction(c)),
}  # fmt: skip
POINTS = np.array([0.25, 0.5, 0.75, 0.9375, 1.0, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5])


@pytest.mark.parametrize("dtype", dt.FLOATS)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_float_intrinsics(name: str, dtype: str) -> None:
    arity = INTRINSICS[name].arity
    args = [np.roll(POINTS, n).astype(dt.to_numpy(dtype)) for n in range(arity)]
    found = evaluate(lambda *x: Call(name, x, dtype), *args, result=dtype).astype(np.float64)
    rtol = {"float16": 2e-3, "bfloat16": 1e-2, "float32": 1e-6, "float64": 1e-14}[dtype]
    want = [exactly(FUNCTIONS[name])(*(float(a[n]) for a in args)) for n in range(len(POINTS))]
    np.testing.assert_allclose(found, want, rtol=rtol, atol=rtol * 1e-2)


def test_rounding_goes_away_from_zero_and_nearbyint_to_even() -> None:
    a = np.array([0.5, 1.5, 2.5, -0.5, -2.5, 0.49999997, 8388609.0], "float32")
    assert evaluate(lambda x: Call("round", (x,), "float32"), a, result="float32").tolist() == [
        1, 2, 3, -1, -3, 0, 8388609]  # fmt: skip
    assert evaluate(lambda x: Call("nearbyint", (x,), "float32"), a, result="float32").tolist() == [
        0, 2, 2, 0, -2, 0, 8388609]  # fmt: skip


def test_predicates_of_floats() -> None:
    a = np.array([1.0, math.nan, math.inf, -math.inf], "float32")
    for dtype in dt.FLOATS:
        for name, want in (("isnan", [0, 1, 0, 0]), ("isinf", [0, 0, 1, 1]), ("isfinite", [1, 0, 0, 0])):
            values = a.astype(dt.to_numpy(dtype))
            found = evaluate(lambda x: Call(name, (x,), "bool"), values, result="bool")  # noqa: B023
            assert found.tolist() == [bool(w) for w in want]


@pytest.mark.parametrize("dtype", ALL_INTS)
@given(data=st.data())
@few
def test_bit_intrinsics(dtype: str, data: st.DataObject) -> None:
    a, bits = data.draw(integers(dtype)), dt.bits(dtype)
    patterns = [int(x) % (1 << bits) for x in a]
    ones = evaluate(lambda x: Call("popcount", (x,), dtype), a, result=dtype)
    assert ones.tolist() == [p.bit_count() for p in patterns]
    zeros = evaluate(lambda x: Call("clz", (x,), "int32"), a, result="int32")
    assert zeros.tolist() == [bits - p.bit_length() for p in patterns]
    inverted = evaluate(lambda x: Call("bitwise_not", (x,), dtype), a, result=dtype)
    assert inverted.tolist() == [wrap(~int(x), dtype) for x in a]
    absolute = evaluate(lambda x: Call("abs", (x,), dtype), a, result=dtype)
    assert absolute.tolist() == [wrap(abs(int(x)), dtype) for x in a]


def test_reinterpreting_keeps_the_bits() -> None:
    a = np.array([1.0, -0.0, math.inf], "float32")
    bits = evaluate(lambda x: Call("reinterpret", (x,), "uint32"), a, result="uint32")
    assert [hex(b) for b in bits] == ["0x3f800000", "0x80000000", "0x7f800000"]
    half = evaluate(lambda x: Call("reinterpret", (x,), "bfloat16"), np.array([0x3F80], "uint16"), result="bfloat16")
    assert half.astype(float).tolist() == [1.0]


def test_scaling_by_powers_of_two_and_in_fixed_point() -> None:
    x, n = np.array([1.5, -3.0], "float32"), np.array([3, -1], "int32")
    assert evaluate(lambda a, b: Call("ldexp", (a, b), "float32"), x, n, result="float32").tolist() == [12.0, -1.5]
    # x * y / 2**31, halves up, then by 2**s: 1000 * 0.75 * 2 and 1001 * 0.75 / 4
    x32, y = np.array([1000, 1001], "int32"), np.array([3 << 29, 3 << 29], "int32")
    q, s = np.array([31, 31], "int32"), np.array([1, -2], "int32")
    found = evaluate(lambda *a: Call("q_multiply_shift", a, "int32"), x32, y, q, s, result="int32")
    assert found.tolist() == [1500, 188]


def test_the_next_float_and_the_sign_of_another() -> None:
    a, b = np.array([1.0, -1.0], "float32"), np.array([2.0, -0.0], "float32")
    found = evaluate(lambda x, y: Call("nextafter", (x, y), "float32"), a, b, result="float32")
    assert found.tolist() == np.nextafter(a, b).tolist()
    signs = evaluate(lambda x, y: Call("copysign", (x, y), "float32"), a, b, result="float32")
    assert np.signbit(signs).tolist() == [False, True]


def test_a_fused_multiply_add_rounds_once() -> None:
    a = np.array([1 + 2**-27, 1e308], "float64")
    b, c = np.array([1 - 2**-27, 10.0], "float64"), np.array([-1.0, -math.inf], "float64")
    found = evaluate(lambda *x: Call("fma", x, "float64"), a, b, c, result="float64")
    assert found.tolist() == [-(2.0**-54), -math.inf]


def test_a_choice_evaluates_what_it_chooses() -> None:
    a, b = np.array([8, 9, 10], "int32"), np.array([2, 0, 5], "int32")

    def guarded(make: Callable[[Expr, Expr, Expr], Expr]) -> list[int]:
        nonzero: Callable[[Expr], Expr] = lambda y: op("ne", y, op("sub", y, y))  # noqa: E731
        return evaluate(lambda x, y: make(nonzero(y), op("div", x, y), x), a, b, result="int32").tolist()

    assert guarded(lambda c, x, y: Call("if_then_else", (c, x, y), "int32")) == [4, 9, 2]
    assert guarded(lambda c, x, y: Select(c, x, y)) == [4, 9, 2]


def test_logic_goes_on_only_where_it_is_undecided() -> None:
    a, b = np.array([8, 9, 10], "int32"), np.array([2, 0, 5], "int32")

    def logic(name: str, test: str) -> list[bool]:
        return evaluate(
            lambda x, y: op(name, op(test, y, op("sub", y, y)), op("eq", op("mod", x, y), op("sub", x, x))),
            a, b, result="bool").tolist()  # fmt: skip

    assert logic("and", "ne") == [True, False, True]
    assert logic("or", "eq") == [True, True, True]


@pytest.mark.parametrize("name", sorted(set(EXTERN_ALLOWED) - {"memcpy", "memmove", "memset"}))
def test_every_allowed_extern_function_is_defined(name: str) -> None:
    single = name.endswith("f") and name[:-1] in EXTERN_ALLOWED
    dtype = "float32" if single else "float64"
    args = [np.array([0.25, 0.5, 0.75], dtype) for _ in range(EXTERN_ALLOWED[name])]
    found = evaluate(lambda *x: Call("call_pure_extern", (StringImm(name), *x), dtype), *args, result=dtype)
    base = name[:-1] if single else name
    if hasattr(math, base) and base not in ("pow", "trunc"):
        want = [exactly(getattr(math, base))(*(float(a[n]) for a in args)) for n in range(3)]
        np.testing.assert_allclose(found, want, rtol=1e-6)


def test_every_intrinsic_that_gives_a_value_is_tested_here() -> None:
    tested = {
        *FUNCTIONS, "isnan", "isinf", "isfinite", "popcount", "clz", "bitwise_not", "reinterpret", "ldexp",
        "q_multiply_shift", "nextafter", "if_then_else", "call_pure_extern",
    }  # fmt: skip
    elsewhere = {
        "exp2",
        "likely",
        "assume",
        "call_extern",
        "ret",
        "storage_sync",
        "address_of",
        "launch_kernel",
        "call_function",
    }
    elsewhere |= {"dot4", "prefetch"}  # tests/compiler/test_dot.py, test_fetch_next.py
    assert tested | elsewhere == set(INTRINSICS)
