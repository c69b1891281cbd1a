"""Every operator, cast and intrinsic on every dtype that the device has, at the values where things go wrong."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Call
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.interpreter import run
from crossfarm.ir.stmt import BufferStore, SeqStmt, Stmt
from crossfarm.ir.visitor import Mutator
from tests.compiler.operators import INTEGERS, assert_same_bits, edges, programs_of
from tests.compiler.programs import elementwise, module, outputs
from tests.conformance.conftest import OnDevice

#: Functions of one float argument, and a range of arguments on which they are defined.
FUNCTIONS = {
    "exp": (-80, 80), "exp2": (-100, 100), "exp10": (-30, 30), "log": (1e-6, 1e6), "log2": (1e-6, 1e6),
    "log10": (1e-6, 1e6), "log1p": (-0.9, 100), "rsqrt": (1e-6, 1e6), "sqrt": (0, 1e6), "tanh": (-10, 10),
    "sigmoid": (-80, 80), "erf": (-5, 5), "sin": (-100, 100), "cos": (-100, 100), "tan": (-1.5, 1.5), "asin": (-1, 1),
    "acos": (-1, 1), "atan": (-100, 100), "sinh": (-10, 10), "cosh": (-10, 10), "asinh": (-100, 100),
    "acosh": (1, 100), "atanh": (-0.99, 0.99),
}  # fmt: skip


def _pairs(dtype: str) -> list[np.ndarray[Any, Any]]:
    values = edges(dtype)
    pairs = list(product(range(len(values)), repeat=2))
    return [values[[p[k] for p in pairs]] for k in range(2)]


def _compare(on_device: OnDevice, func: PrimFunc, inputs: list[np.ndarray[Any, Any]]) -> None:
    built = module(f=func)
    n = len(inputs[0])
    expected, actual = outputs(func, len(inputs), n), outputs(func, len(inputs), n)
    with np.errstate(all="ignore"):
        run(built, "f", [*inputs, *expected])
    on_device(built, "f", [*inputs, *actual])
    for param, a, e in zip(func.params[len(inputs) :], actual, expected):
        with np.errstate(all="ignore"):
            assert_same_bits(a, e, param.name, inputs)


def _where_it_can(func: PrimFunc, inputs: int, dtypes: tuple[str, ...]) -> PrimFunc:
    """The same program without results in dtypes that the device does not have."""
    kept = [p for p in func.params[inputs:] if p.dtype in dtypes]
    return replace(func, params=(*func.params[:inputs], *kept), body=_Kept(kept).mutate(func.body))


class _Kept(Mutator):
    """Drops stores to other buffers."""

    def __init__(self, buffers: list[Any]) -> None:
        self.buffers = buffers

    def mutate_BufferStore(self, node: BufferStore) -> Stmt:
        return node if node.buffer in self.buffers else SeqStmt(())


@pytest.mark.parametrize("dtype", dt.SCALARS)
def test_operators_mean_what_the_interpreter_says(dtype: str, on_device: OnDevice) -> None:
    func, inputs = programs_of("operators")[f"{dtype}_serial"]
    if dtype not in on_device.dtypes():
        with pytest.raises(BuildFailed, match=dtype):
            on_device.load(module(f=func))
        return
    _compare(on_device, _where_it_can(func, len(inputs), on_device.dtypes()), _pairs(dtype))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_divisions_mean_what_the_interpreter_says(dtype: str, on_device: OnDevice) -> None:
    func, _ = programs_of("divisions")[f"{dtype}_serial"]
    if dtype not in on_device.dtypes():
        with pytest.raises(BuildFailed, match=dtype):
            on_device.load(module(f=func))
        return
    a, b = _pairs(dtype)
    keep = b != 0
    _compare(on_device, func, [a[keep], b[keep]])


@pytest.mark.parametrize("dtype", dt.SCALARS)
def test_casts_mean_what_the_interpreter_says(dtype: str, on_device: OnDevice) -> None:
    func, inputs = programs_of("casts")[f"{dtype}_serial"]
    if dtype not in on_device.dtypes():
        with pytest.raises(BuildFailed, match=dtype):
            on_device.load(module(f=func))
        return
    _compare(on_device, _where_it_can(func, len(inputs), on_device.dtypes()), [edges(dtype)])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_close(name: str, dtype: str, on_device: OnDevice) -> None:
    low, high = FUNCTIONS[name]
    to = dt.to_numpy(dtype)
    with np.errstate(over="ignore"):
        x = np.linspace(low, high, 1001).astype(to)
    func = elementwise((dtype,), {"y": lambda a: Call(name, (a,), a.dtype)})
    expected, actual = outputs(func, 1, len(x)), outputs(func, 1, len(x))
    built = module(f=func)
    with np.errstate(all="ignore"):
        run(built, "f", [x, *expected])
    on_device(built, "f", [x, *actual])
    tolerance = {"float32": 4e-6, "float16": 2e-3, "bfloat16": 1e-2}[dtype]
    np.testing.assert_allclose(
        actual[0].astype(np.float64), expected[0].astype(np.float64), rtol=tolerance, atol=tolerance
    )
