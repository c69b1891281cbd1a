"""Operators, casts and functions in kernels for CUDA, as CUDA C and as PTX, run by this machine's CPU."""

from __future__ import annotations

from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pytest

from compiler_service.codegen.vector_math import FUNCTIONS, WITHOUT_LIBM
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Call, Expr, StringImm
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.interpreter import run
from crossfarm.ir.intrinsics import INTRINSICS
from tests.compiler.accuracy import OF_TWO, assert_within, samples
from tests.compiler.gpu_on_cpu import GpuOnCpu
from tests.compiler.operators import INTEGERS, assert_same_bits, edges, programs_of
from tests.compiler.programs import elementwise, module, outputs

FORMS = ("cuda_c", "ptx")
Array = np.ndarray[Any, Any]
#: Of all float32, every so many-th.
STEP = 40009


def _pairs(dtype: str) -> list[Array]:
    values = edges(dtype)
    pairs = list(product(range(len(values)), repeat=2))
    return [values[[p[k] for p in pairs]] for k in range(2)]


def _compare(form: str, func: PrimFunc, inputs: list[Array]) -> None:
    built = module(f=func)
    n = len(inputs[0])
    expected, actual = outputs(func, len(inputs), n), outputs(func, len(inputs), n)
    with np.errstate(all="ignore"):
        run(built, "f", [*inputs, *expected])
        GpuOnCpu(built, form)("f", *inputs, *actual)
        for param, a, e in zip(func.params[len(inputs) :], actual, expected):
            assert_same_bits(a, e, param.name, inputs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", dt.SCALARS)
def test_operators_mean_what_the_interpreter_says(dtype: str, form: str) -> None:
    func, _ = programs_of("operators")[f"{dtype}_serial"]
    _compare(form, func, _pairs(dtype))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_divisions_mean_what_the_interpreter_says(dtype: str, form: str) -> None:
    func, _ = programs_of("divisions")[f"{dtype}_serial"]
    a, b = _pairs(dtype)
    keep = b != 0
    _compare(form, func, [a[keep], b[keep]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", dt.SCALARS)
def test_casts_mean_what_the_interpreter_says(dtype: str, form: str) -> None:
    func, _ = programs_of("casts")[f"{dtype}_serial"]
    _compare(form, func, [edges(dtype)])


def _call(name: str, *args: Expr) -> Expr:
    """As an intrinsic, else as libm's function."""
    if name in INTRINSICS:
        return Call(name, args, "float32")
    return Call("call_pure_extern", (StringImm(f"{name}f"), *args), "float32")


@cache
def _functions(form: str) -> GpuOnCpu:
    """Every function of float32, one to a kernel."""
    made = {
        name: elementwise(("float32",) * (2 if name in OF_TWO else 1), {"y": partial(_call, name)})
        for name in (*FUNCTIONS, *WITHOUT_LIBM)
    }
    return GpuOnCpu(module(**made), form)


@pytest.mark.parametrize("name", [*FUNCTIONS, *WITHOUT_LIBM])
def test_functions_are_within_the_stated_error_over_all_arguments(name: str) -> None:
    args = samples(name, STEP)
    got = np.empty_like(args[0])
    _functions("ptx")(name, *args, got)
    assert_within(name, (FUNCTIONS.get(name) or WITHOUT_LIBM[name]).ulp, args, got)


@pytest.mark.parametrize("name", WITHOUT_LIBM)
def test_functions_in_the_readable_source_are_the_same_ones(name: str) -> None:
    args = samples(name, STEP * 100)
    got, want = np.empty_like(args[0]), np.empty_like(args[0])
    _functions("ptx")(name, *args, want)
    _functions("cuda_c")(name, *args, got)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-44)
