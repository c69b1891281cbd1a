"""Every operator, cast and intrinsic as SPIR-V means what the reference interpreter says, on the machine's device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from compiler_service.codegen.spirv_functions import FUNCTIONS
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Binary, Call, Cast, FloatImm, IntImm, StringImm
from crossfarm.ir.interpreter import run
from device_agent.drivers.vulkan_queue import Queue
from tests.compiler import accuracy
from tests.compiler.operators import DIVISIONS, INTEGERS, assert_same_bits, edges, programs_of
from tests.compiler.programs import Make, elementwise, module, outputs
from tests.compiler.vulkan_device import BARE, FULL, element_kernel, open_queue

Array = np.ndarray[Any, Any]
STEP = 40_009


@pytest.fixture(scope="module")
def queue() -> Iterator[Queue]:
    opened = open_queue()
    yield opened
    opened.close()


def inputs_of(dtype: str, count: int) -> list[Array]:
    """All pairs of edge values, and random bits."""
    values, rng = edges(dtype), np.random.default_rng(11)
    itemsize = values.dtype.itemsize
    noise = [rng.integers(0, 256, (512, itemsize), np.uint8).view(values.dtype).ravel() for _ in range(2)]
    if dtype == "bool":
        noise = [x.view(np.uint8) % 2 == 0 for x in noise]
    pairs = (np.repeat(values, len(values)), np.tile(values, len(values)))
    return [np.concatenate([pair, more]) for pair, more in zip(pairs, noise)][:count]


def check(queue: Queue, results: dict[str, Make], inputs: list[Array]) -> None:
    """The device's results have the interpreter's bits."""
    dtypes = [dt.from_numpy(x.dtype) for x in inputs]
    actual = element_kernel(dtypes, results).run(queue, *inputs)
    func = elementwise(dtypes, results)
    expected = outputs(func, len(inputs), len(inputs[0]))
    run(module(f=func), "f", [*inputs, *expected])
    for param, e in zip(func.params[len(inputs) :], expected):
        with np.errstate(all="ignore"):
            assert_same_bits(actual[param.name.removeprefix("out_")], e, param.name, inputs)


def results_of(group: str, dtype: str) -> dict[str, Make]:
    """What a group of ``tests/compiler/operators.py`` computes on ``dtype``."""
    from tests.compiler import operators

    table: dict[str, Make] = getattr(operators, f"_{group}")(dtype)
    assert set(programs_of(group)) >= {f"{dtype}_serial"}
    return table


@pytest.mark.parametrize("dtype", dt.SCALARS)
def test_operators_mean_what_the_interpreter_says(queue: Queue, dtype: str) -> None:
    check(queue, results_of("operators", dtype), inputs_of(dtype, 2))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_divisions_mean_what_the_interpreter_says(queue: Queue, dtype: str) -> None:
    a, b = inputs_of(dtype, 2)
    check(queue, results_of("divisions", dtype), [a, np.where(b == 0, b.dtype.type(3), b)])


@pytest.mark.parametrize("dtype", dt.SCALARS)
def test_casts_mean_what_the_interpreter_says(queue: Queue, dtype: str) -> None:
    check(queue, results_of("casts", dtype), inputs_of(dtype, 1))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_zero_divisor_counts_as_one(queue: Queue, dtype: str) -> None:
    values = edges(dtype)
    results = {op: lambda a, b, op=op: Binary(op, a, b) for op in DIVISIONS}
    got = element_kernel((dtype, dtype), results).run(queue, values, np.zeros_like(values))
    for op in DIVISIONS:
        np.testing.assert_array_equal(got[op], values if "div" in op else np.zeros_like(values), err_msg=op)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_small_float_is_converted_exactly(queue: Queue, dtype: str) -> None:
    patterns = np.arange(1 << 16, dtype=np.uint16).view(dt.to_numpy(dtype))
    check(queue, {to: lambda a, to=to: Cast(a, to) for to in ("float32", "int32", "int8", "uint64")}, [patterns])
    for wide in (np.float32, np.float64):
        with np.errstate(all="ignore"):
            halves = patterns.astype(wide)
            middles = ((halves[:-1] + halves[1:]) / 2).astype(wide)
        for values in (middles, np.nextafter(middles, wide(np.inf)), np.nextafter(middles, wide(0))):
            check(queue, {dtype: lambda a: Cast(a, dtype)}, [values])


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64"])
def test_large_integers_become_bfloat16_with_one_rounding(queue: Queue, dtype: str) -> None:
    low, high = dt.int_range(dtype)
    rng = np.random.default_rng(2)
    values = []
    for bits in range(8, dt.bits(dtype) + 1):
        for _ in range(12):
            top = (1 << (bits - 1)) | int(rng.integers(0, 128)) << max(bits - 8, 0)
            half = 1 << max(bits - 9, 0)
            values += [sign * (top + half + d) for d in (-1, 0, 1) for sign in (1, -1)]
    array = np.array([v for v in values if low <= v <= high], dtype)
    check(queue, {"bfloat16": lambda a: Cast(a, "bfloat16")}, [array])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_within_the_stated_error(queue: Queue, name: str) -> None:
    function = FUNCTIONS[name]
    args = accuracy.samples("pow" if function.arity == 2 else name, STEP)

    def make(*values: Any) -> Call:
        if name in ("expm1", "cbrt"):
            return Call("call_extern", (StringImm(f"{name}f"), *values), "float32")
        return Call(name, values, "float32")

    got = element_kernel(("float32",) * function.arity, {"y": make}).run(queue, *args)["y"]
    if name == "nextafter":
        with np.errstate(all="ignore"):
            assert_same_bits(got, np.nextafter(*args), name, args)
        return
    accuracy.assert_within(name, function.ulp, args, got)


@pytest.mark.parametrize("name", ["sqrt", "rsqrt"])
def test_roots_are_close(queue: Queue, name: str) -> None:
    args = accuracy.samples(name, STEP)
    got = element_kernel(("float32",), {"y": lambda a: Call(name, (a,), "float32")}).run(queue, *args)["y"]
    accuracy.assert_within(name, {"sqrt": 0.51, "rsqrt": 1.5}[name], args, got)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_functions_of_small_floats_are_rounded_once(queue: Queue, dtype: str) -> None:
    x = np.linspace(0.05, 0.95, 256).astype(dt.to_numpy(dtype))
    names = [name for name, function in FUNCTIONS.items() if function.arity == 1 and name not in ("expm1", "cbrt")]
    names.remove("acosh")
    results: dict[str, Make] = {name: lambda a, name=name: Call(name, (a,), a.dtype) for name in names}
    got = element_kernel((dtype,), results).run(queue, x)
    tolerance = {"float16": 2e-3, "bfloat16": 8e-3}[dtype]
    for name in names:
        wanted = accuracy.REFERENCES[name](x.astype(np.float64))
        np.testing.assert_allclose(got[name].astype(np.float64), wanted, rtol=tolerance, err_msg=name)


def test_powers_of_small_constants_are_products(queue: Queue) -> None:
    x = np.float32([-3.3, -0.0, 0.7, 1e20, np.inf])
    results: dict[str, Make] = {
        str(n): lambda a, n=n: Call("pow", (a, FloatImm(float(n), "float32")), "float32") for n in (1, 2, 3)
    }
    got = element_kernel(("float32",), results).run(queue, x)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got["1"], x)
        np.testing.assert_array_equal(got["2"], x * x)
        np.testing.assert_array_equal(got["3"], x * x * x)


def test_scaling_by_powers_of_two(queue: Queue) -> None:
    x = np.repeat(np.float32([1.0, -1.7, 3e38, 1e-38, 0.0, -0.0, np.inf, np.nan, 1.4e-45]), 15)
    powers = [0, 1, -1, 10, -10, 126, 127, 128, -126, -127, -149, 200, -200, 300, -300]
    n = np.tile(np.array(powers, np.int32), 9)
    got = element_kernel(("float32", "int32"), {"y": lambda a, b: Call("ldexp", (a, b), a.dtype)}).run(queue, x, n)["y"]
    with np.errstate(all="ignore"):
        assert_same_bits(got, np.ldexp(x, n), "ldexp", [x, n])


def test_fixed_point_multiplication_rounds_halves_up(queue: Queue) -> None:
    def make(a: Any, b: Any) -> Call:
        return Call("q_multiply_shift", (a, b, IntImm(31, "int32"), IntImm(-3, "int32")), "int32")

    a = np.array([1 << 20, -(1 << 20), 12345, -999, 2**31 - 1, -(2**31)], np.int32)
    check(queue, {"q": make}, [a, np.full(6, 1 << 30, np.int32)])


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        ("int8", ("uint8",)), ("uint8", ("int8",)), ("int16", ("uint16", "float16", "bfloat16")),
        ("float16", ("int16", "uint16", "bfloat16")), ("bfloat16", ("int16", "uint16", "float16")),
        ("uint32", ("float32", "int32")), ("float32", ("int32", "uint32")),
        ("int64", ("float64", "uint64")), ("float64", ("int64", "uint64")),
    ],
)  # fmt: skip
def test_values_keep_their_bits_when_reinterpreted(queue: Queue, source: str, targets: tuple[str, ...]) -> None:
    width = dt.bits(source)
    rng = np.random.default_rng(4)
    bits = rng.integers(0, 2**width, 500, np.uint64, endpoint=False) if width < 64 else rng.integers(0, 2**63, 500)
    values = bits.astype(f"uint{width}").view(dt.to_numpy(source))
    results: dict[str, Make] = {to: lambda a, to=to: Call("reinterpret", (a,), to) for to in targets}
    got = element_kernel((source,), results).run(queue, values)
    for to in targets:
        assert_same_bits(got[to], values.view(dt.to_numpy(to)), to, [values])


def test_float64_has_what_devices_have(queue: Queue) -> None:
    x = np.concatenate([edges("float64"), np.random.default_rng(1).normal(size=200) * 1e3])
    results: dict[str, Make] = {
        name: lambda a, name=name: Call(name, (a,), a.dtype)
        for name in ("sqrt", "floor", "ceil", "trunc", "round", "nearbyint", "abs")
    }
    results["copysign"] = lambda a: Call("copysign", (FloatImm(2.5, "float64"), a), "float64")
    check(queue, results, [x])


@pytest.mark.parametrize("name", ["fminf", "fmaxf", "fdimf", "floorf", "rintf", "fabsf", "copysignf"])
def test_functions_of_libm_by_name(queue: Queue, name: str) -> None:
    inputs = inputs_of("float32", 1 if name in ("floorf", "rintf", "fabsf") else 2)
    kernel = element_kernel(
        ["float32"] * len(inputs), {"y": lambda *args: Call("call_pure_extern", (StringImm(name), *args), "float32")}
    )
    reference = {"fminf": np.fmin, "fmaxf": np.fmax, "floorf": np.floor, "rintf": np.rint, "fabsf": np.abs}.get(name)
    with np.errstate(all="ignore"):
        if name == "fdimf":
            wanted = np.where(inputs[0] <= inputs[1], np.float32(0), inputs[0] - inputs[1])
        else:
            wanted = (reference or np.copysign)(*inputs)
    # of two zeros either may be the smaller
    np.testing.assert_array_equal(kernel.run(queue, *inputs)["y"], wanted)


def test_what_every_device_has_is_enough_for_32_bits(queue: Queue) -> None:
    results: dict[str, Make] = {
        "sin": lambda a, b: Call("sin", (a,), "float32"),
        "pow": lambda a, b: Call("pow", (a, Cast(b, "float32")), "float32"),
        "quotient": lambda a, b: Binary("floordiv", b, IntImm(7, "int32")),
        "narrow": lambda a, b: Cast(Cast(b, "int8"), "int32"),
    }
    x, n = np.linspace(-9, 9, 100, dtype=np.float32), np.arange(-50, 50, dtype=np.int32)
    got = element_kernel(("float32", "int32"), results).run(queue, x, n, target=BARE)
    wanted = element_kernel(("float32", "int32"), results).run(queue, x, n, target=FULL)
    for name in results:
        assert_same_bits(got[name], wanted[name], name, [x, n])
