"""Every operator, cast and intrinsic on every dtype means what the reference interpreter says."""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compiler_service.build import build_variant
from crossfarm.errors import ProgramError
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Call, Cast, Expr, FloatImm, IntImm
from crossfarm.ir.interpreter import run
from crossfarm.target import Target
from crossfarm.wire.v1 import compiler_pb2
from tests.compiler.native import Native
from tests.compiler.operators import DIVISIONS, INTEGERS, Programs, assert_same_bits, call, edges, programs_of
from tests.compiler.programs import Make, elementwise, module, outputs

KINDS = ("serial", "vectorized")

#: Intrinsics of one float argument that may differ in the last places.
CLOSE = (
    "exp", "exp2", "exp10", "log", "log2", "log10", "log1p", "rsqrt", "tanh", "sigmoid", "erf", "sin", "cos",
    "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
)  # fmt: skip


@cache
def _compiled(group: str, target: str = "llvm") -> tuple[Any, Native, Programs]:
    """One library for a whole group of programs, as cold builds are what takes the time."""
    programs = programs_of(group)
    built = module(**{name: func for name, (func, _) in programs.items()})
    return built, Native(built, target), programs


def _values(dtype: str, n: int) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    """Arrays with many of the values where things go wrong."""
    if dtype in ("float16", "bfloat16"):
        return hnp.arrays(np.uint16, n).map(lambda bits: bits.view(dt.to_numpy(dtype)))
    to = dt.to_numpy(dtype)
    elements = hnp.from_dtype(to)
    if dt.is_int(dtype):
        low, high = dt.int_range(dtype)
        edges = sorted({v for v in (low, low + 1, -2, -1, 0, 1, 2, 7, high - 1, high) if low <= v <= high})
        elements = st.one_of(st.sampled_from(edges), elements)
    return hnp.arrays(to, n, elements=elements)


def _compare(group: str, name: str, inputs: list[np.ndarray[Any, Any]], target: str = "llvm") -> None:
    built, native, programs = _compiled(group, target)
    func, dtypes = programs[name]
    n = len(inputs[0])
    expected, actual = outputs(func, len(dtypes), n), outputs(func, len(dtypes), n)
    run(built, name, [*inputs, *expected])
    native(name, *inputs, *actual)
    for param, a, e in zip(func.params[len(dtypes) :], actual, expected):
        with np.errstate(all="ignore"):
            assert_same_bits(a, e, f"{name}: {param.name}", inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", dt.SCALARS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_operators_mean_what_the_interpreter_says(dtype: str, kind: str, data: st.DataObject) -> None:
    inputs = [data.draw(_values(dtype, 8)) for _ in range(2)]
    _compare("operators", f"{dtype}_{kind}", inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", INTEGERS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_integer_divisions_mean_what_the_interpreter_says(dtype: str, kind: str, data: st.DataObject) -> None:
    a, b = (data.draw(_values(dtype, 8)) for _ in range(2))
    b[b == 0] = 3
    _compare("divisions", f"{dtype}_{kind}", [a, b])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", dt.SCALARS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_casts_mean_what_the_interpreter_says(dtype: str, kind: str, data: st.DataObject) -> None:
    _compare("casts", f"{dtype}_{kind}", [data.draw(_values(dtype, 8))])


@pytest.mark.parametrize("target", ["llvm", "llvm arch=x86_64 cpu=x86-64"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_small_floats_are_exact_with_and_without_the_cpus_conversions(dtype: str, target: str) -> None:
    if platform.machine() != "x86_64":
        target = "llvm"
    patterns = np.arange(1 << 16, dtype=np.uint16).view(dt.to_numpy(dtype))
    _compare("casts", f"{dtype}_serial", [patterns], target)
    _compare("operators", f"{dtype}_serial", [patterns, patterns[::-1].copy()], target)
    rng = np.random.default_rng(7)
    for wide in (np.float32, np.float64):
        values = rng.integers(0, 256, (4096, np.dtype(wide).itemsize), np.uint8).view(wide).ravel()
        with np.errstate(all="ignore"):
            halves = patterns.astype(wide)
            middles = ((halves[:-1] + halves[1:]) / 2).astype(wide)
        for inputs in (values, halves, middles, np.nextafter(middles, wide(np.inf)), np.nextafter(middles, wide(0))):
            _compare("casts", f"{np.dtype(wide).name}_serial", [inputs], target)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", DIVISIONS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_division_by_zero_fails_the_call_and_names_the_function(dtype: str, op: str, kind: str) -> None:
    _, native, programs = _compiled("divisions")
    func, _ = programs[f"{dtype}_{kind}"]
    ones = np.ones(8, dt.to_numpy(dtype))
    divisors = ones.copy()
    divisors[5] = 0
    with pytest.raises(ProgramError, match=f"integer division by zero in function '{dtype}_{kind}'"):
        native(f"{dtype}_{kind}", ones, divisors, *outputs(func, 2, 8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", dt.INTS)
def test_the_smallest_integer_over_minus_one_wraps(dtype: str, kind: str) -> None:
    lowest = np.full(8, dt.int_range(dtype)[0], dt.to_numpy(dtype))
    _compare("divisions", f"{dtype}_{kind}", [lowest, np.full(8, -1, lowest.dtype)])


@pytest.mark.parametrize("dtype", dt.SCALARS)
def test_edge_values_mean_what_the_interpreter_says(dtype: str) -> None:
    values = edges(dtype)
    a, b = np.repeat(values, len(values)), np.tile(values, len(values))
    _compare("operators", f"{dtype}_serial", [a, b])
    _compare("casts", f"{dtype}_serial", [values])


@pytest.mark.parametrize("target", ["raspberry-pi/4b", "aarch64-linux-android"])
@pytest.mark.parametrize("group", ["operators", "divisions", "casts"])
def test_every_operator_links_for_aarch64_with_nothing_left_to_a_compiler_runtime(group: str, target: str) -> None:
    built, _, _ = _compiled(group)
    options = compiler_pb2.BuildOptions(opt_level=1)
    libraries = build_variant(built, Target(target), options).variant.requires.libraries
    assert set(libraries) <= {"libm.so.6", "libc.so.6", "libm.so", "libc.so"}


def test_a_float64_becomes_a_small_float_with_one_rounding() -> None:
    # just above the middle of two neighbours: through float32 it would become the middle, and then round down
    ties = np.array([1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-8 + 2.0**-40, 65519.999999, 2.0**-25 * (1 + 2.0**-30)])
    values = np.concatenate([ties, -ties])
    _, native, programs = _compiled("casts")
    func, _ = programs["float64_vectorized"]
    results = outputs(func, 1, 8)
    native("float64_vectorized", values, *results)
    by_name = {p.name: r for p, r in zip(func.params[1:], results)}
    np.testing.assert_array_equal(
        by_name["out_to_float16"][:4], np.float16([1 + 2.0**-10, 1 + 2.0**-8, 65504, 2.0**-24])
    )
    assert by_name["out_to_bfloat16"].astype(np.float64)[1] == 1 + 2.0**-7


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_a_large_integer_becomes_bfloat16_with_one_rounding(dtype: str) -> None:
    # just above a middle that float64 cannot tell it from
    values = np.array([2**62 + 2**54 + 1, 2**62 + 2**54, 2**53 + 2**45 + 1, 3], dtype)
    func = elementwise((dtype,), {"b": lambda a: Cast(a, "bfloat16")})
    (result,) = outputs(func, 1, 4)
    Native(module(f=func))("f", values, result)
    assert result.astype(np.float64).tolist() == [2.0**62 + 2.0**55, 2.0**62, 2.0**53 + 2.0**46, 3]


@pytest.mark.parametrize("dtype", dt.FLOATS)
def test_float_functions_are_close_to_the_interpreter(dtype: str) -> None:
    results: dict[str, Make] = {name: lambda a, b, name=name: Call(name, (a,), a.dtype) for name in CLOSE}
    results.update({name: call(name) for name in ("pow", "atan2", "fmod", "hypot", "nextafter")})
    if dtype == "float16" or dtype == "bfloat16":
        del results["nextafter"]  # of float32, whose next value rounds back
    results["fma"] = lambda a, b: Call("fma", (a, b, a), a.dtype)
    results["ldexp"] = lambda a, b: Call("ldexp", (a, IntImm(3, "int32")), a.dtype)
    serial, vector = elementwise((dtype, dtype), results), elementwise((dtype, dtype), results, "vectorized", n=16)
    built = module(serial=serial, vector=vector)
    native = Native(built)
    to = dt.to_numpy(dtype)
    x = np.array([0.1, 0.5, 0.9, 1, 1.5, 2, 3, 7, -0.1, -0.5, -0.9, -1, -1.5, -2, -3, 0.01]).astype(to)
    y = np.array([2, 0.3, 1, 0.5, 2, 2, -1, 0.25, 2, 3, 1, 2, 2, 3, 1, 0.5]).astype(to)
    tolerance = {"float64": 4e-15, "float32": 4e-6, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    for name, func in (("serial", serial), ("vector", vector)):
        expected, actual = outputs(func, 2, 16), outputs(func, 2, 16)
        run(built, name, [x, y, *expected])
        native(name, x, y, *actual)
        for param, a, e in zip(func.params[2:], actual, expected):
            np.testing.assert_allclose(
                a.astype(np.float64), e.astype(np.float64), rtol=tolerance, atol=tolerance / 10, err_msg=param.name
            )


def test_constants_keep_their_value_in_every_dtype() -> None:
    constants: dict[str, Make] = {}
    expected: dict[str, Any] = {}
    for dtype in INTEGERS:
        for edge, value in zip(("low", "high"), dt.int_range(dtype)):
            constants[f"{dtype}_{edge}"] = lambda a, v=value, d=dtype: IntImm(v, d)
            expected[f"{dtype}_{edge}"] = value
    for dtype in dt.FLOATS:
        for name, number in (("third", 1 / 3), ("tiny", 1e-7), ("huge", 1e39), ("inf", float("inf")), ("zero", -0.0)):
            constants[f"{dtype}_{name}"] = lambda a, v=number, d=dtype: FloatImm(v, d)
            with np.errstate(all="ignore"):
                expected[f"{dtype}_{name}"] = np.float64(number).astype(dt.to_numpy(dtype))
    func = elementwise(("int32",), constants)
    results = outputs(func, 1, 1)
    Native(module(f=func))("f", np.zeros(1, np.int32), *results)
    for param, result in zip(func.params[1:], results):
        assert_same_bits(result, np.array([expected[param.name[4:]]], result.dtype), param.name, [])


def test_values_keep_their_bits_when_reinterpreted() -> None:
    makes: dict[str, Make] = {
        "f32": lambda a: Call("reinterpret", (a,), "float32"),
        "u32": lambda a: Call("reinterpret", (a,), "uint32"),
    }
    func = elementwise(("int32",), makes)
    bits = np.array([0, -1, 0x3F800000, 1 << 30], np.int32)
    results = outputs(func, 1, 4)
    Native(module(f=func))("f", bits, *results)
    for result in results:
        assert_same_bits(result, bits.view(result.dtype), "reinterpret", [bits])


def test_fixed_point_multiplication_rounds_halves_up() -> None:
    def make(a: Expr, b: Expr) -> Expr:
        return Call("q_multiply_shift", (a, b, IntImm(31, "int32"), IntImm(-3, "int32")), "int32")

    func = elementwise(("int32", "int32"), {"q": make})
    built = module(f=func)
    a = np.array([1 << 20, -(1 << 20), 12345, -999, 2**31 - 1, -(2**31)], np.int32)
    b = np.full(6, 1 << 30, np.int32)
    expected, actual = np.empty(6, np.int32), np.empty(6, np.int32)
    run(built, "f", [a, b, expected])
    Native(built)("f", a, b, actual)
    np.testing.assert_array_equal(actual, expected)
