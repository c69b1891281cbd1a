"""Each construct of the language, symbolic sizes, several functions, and kernels that leave work for others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossfarm.errors import ArgumentError, ProgramError
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir import te
from crossfarm.ir.module import IRModule
from tests.compiler.test_language import A_B, CASES, FLOATS, source
from tests.conformance.conftest import OnDevice, check


@pytest.mark.parametrize("name", CASES)
def test_a_construct_means_the_same_on_the_device(name: str, on_device: OnDevice) -> None:
    check(on_device, parse(source(A_B, CASES[name])), "f", [FLOATS, np.full(64, 5, np.float32)])


def test_scalar_arguments_of_every_dtype_arrive(on_device: OnDevice) -> None:
    given = {"int8": -5, "uint16": 65535, "int64": -(2**40), "float32": 1.5, "float64": 2.25, "bool": True,
             "float16": 0.5, "bfloat16": -3.0, "int32": -7, "uint8": 200}  # fmt: skip
    given = {dtype: value for dtype, value in given.items() if dtype in on_device.dtypes()}
    params = ", ".join([f'A: T.Buffer(({len(given)},), "float32")', *(f"p{i}: T.{d}" for i, d in enumerate(given))])
    body = "\n".join(f'A[{i}] = T.Cast("float32", p{i})' for i in range(len(given)))
    (out, *_) = check(on_device, parse(source(params, body)), "f", [np.zeros(len(given), np.float32), *given.values()])
    np.testing.assert_array_equal(out, [np.float32(v) for v in given.values()])


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (0, 3), (70, 33), (257, 129)])
def test_symbolic_sizes_and_temporaries_of_symbolic_size(shape: tuple[int, int], on_device: OnDevice) -> None:
    body = """
        n, m = T.int64(), T.int64()
        A = T.match_buffer(a, (n, m), "float32")
        B = T.match_buffer(b, (m, n), "float32")
        X = T.alloc_buffer((n, m), "float32")
        for i, j in T.grid(n, m):
            X[i, j] = A[i, j] * T.float32(2)
        for i, j in T.grid(m, n):
            B[i, j] = X[j, i] + T.Cast("float32", n)
    """
    a = np.random.default_rng(3).random(shape, np.float32)
    module = parse(source("a: T.handle, b: T.handle", body))
    check(on_device, module, "f", [a, np.zeros(shape[::-1], np.float32)])


@pytest.mark.parametrize("n", [3, 32, 0, -5])
def test_a_scalar_argument_may_size_a_temporary(n: int, on_device: OnDevice) -> None:
    body = """
        X = T.alloc_buffer((n * 2,), "float32")
        for i in range(n * 2):
            X[i] = A[i]
        for i in range(n * 2):
            B[i] = X[n * 2 - 1 - i]
    """
    module = parse(source(f"{A_B}, n: T.int32", body))
    check(on_device, module, "f", [FLOATS, np.zeros(64, np.float32), n])


def test_a_scalar_that_is_also_a_dimension_is_compared_with_it(on_device: OnDevice) -> None:
    body = 'A = T.match_buffer(a, (n,), "float32")\nfor i in range(n):\n    A[i] = T.float32(1)'
    function = on_device.load(parse(source("a: T.handle, n: T.int32", body)))["f"]
    function(np.zeros(8, np.float32), 8)
    with pytest.raises((ArgumentError, ProgramError), match=r"argument A|'n'"):
        function(np.zeros(8, np.float32), 9)


def test_a_failed_assertion_ends_the_call_with_its_message(on_device: OnDevice) -> None:
    function = on_device.load(parse(source(A_B, 'assert A[0] > T.float32(0), "A must be positive"\nB[0] = A[0]')))["f"]
    arrays = [np.ones(64, np.float32), np.zeros(64, np.float32)]
    function(*arrays)
    assert arrays[1][0] == 1
    with pytest.raises(ProgramError, match="assertion failed in function 'f': A must be positive"):
        function(np.zeros(64, np.float32), arrays[1])
    function(*arrays)  # the failure is over with its call


def test_a_division_by_zero_fails_the_call(on_device: OnDevice) -> None:
    params = 'A: T.Buffer((8,), "int32"), B: T.Buffer((8,), "int32")'
    body = "for i in range(8):\n    B[i] = 100 // A[i]"
    function = on_device.load(parse(source(params, body)))["f"]
    results = np.zeros(8, np.int32)
    function(np.arange(1, 9, dtype=np.int32), results)
    np.testing.assert_array_equal(results, 100 // np.arange(1, 9))
    with pytest.raises(ProgramError, match="integer division by zero in function 'f'"):
        function(np.arange(8, dtype=np.int32), results)


def test_a_division_that_is_not_reached_does_not_fail(on_device: OnDevice) -> None:
    params = 'A: T.Buffer((8,), "int32"), B: T.Buffer((8,), "int32")'
    body = "for i in range(8):\n    B[i] = T.Select(A[i] != 0, 100 // A[i], -1)"
    check(on_device, parse(source(params, body)), "f", [np.arange(8, dtype=np.int32) - 2, np.zeros(8, np.int32)])


def _two_stages(scale: float) -> Any:
    a = te.placeholder((33, 65), name="A")
    k = te.reduce_axis((0, 65), name="k")
    rows = te.compute((33,), lambda i: te.sum(a[i, k], axis=k), name="rows")
    out = te.compute((33, 65), lambda i, j: a[i, j] / rows[i] * scale, name="out")
    return te.create_prim_func([a, out])


def test_several_functions_each_of_several_kernels(on_device: OnDevice) -> None:
    module = IRModule({"one": _two_stages(1.0), "ten": _two_stages(10.0)})
    a = np.random.default_rng(0).random((33, 65), np.float32)
    loaded = on_device.load(module)
    for name, scale in (("one", 1.0), ("ten", 10.0)):
        expected = a / a.sum(axis=1, keepdims=True) * scale
        np.testing.assert_allclose(loaded[name](a), expected, rtol=1e-5)
    x = on_device.device.tensor(a)
    futures = [loaded["ten"].submit(x) for _ in range(20)]
    for future in futures:
        np.testing.assert_allclose(future.result().numpy(), a / a.sum(axis=1, keepdims=True) * 10, rtol=1e-5)


def test_a_benchmark_measures_the_call_and_its_kernels(on_device: OnDevice, kind: str) -> None:
    loaded = on_device.load(IRModule({"one": _two_stages(1.0)}), schedule="none")  # rules may make one kernel of two
    a = np.random.default_rng(0).random((33, 65), np.float32)
    result = loaded["one"].benchmark(a, warmup=1, repeat=3, min_repeat_ms=1)
    assert len(result.samples) == 3
    assert result.min > 0
    profile = loaded["one"].profile(a, warmup=1, repeat=3)
    (step,) = profile.steps
    assert (step.function, profile.whole) == ("one", False)
    assert step.seconds > 0
    assert len(step.kernels) == (0 if kind == "cpu" else 2)
    assert all(kernel.seconds > 0 for kernel in step.kernels)


def test_a_value_that_an_expression_binds_is_not_its_result(on_device: OnDevice) -> None:
    a = te.placeholder((8,), name="A")
    b = te.compute((8,), lambda i: te.let(a[i] + 1, lambda t: t * t), name="B")
    module = IRModule({"main": te.create_prim_func([a, b])})
    values, got = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    on_device(module, "main", [values, got])
    np.testing.assert_array_equal(got, (values + 1) ** 2)
