"""Functions of calls on devices: what they compute, where they leave it, and what of a failure is told."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from crossfarm.errors import ArgumentError, ProgramError
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.module import IRModule
from device_agent.drivers.base import Device
from tests.compiler.graph.programs import Calls, tensor
from tests.compiler.graph.running import KINDS, Runner, Running, open_device

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def device(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCL_CACHE_DIR", str(tmp_path_factory.mktemp("pocl")))
        opened = open_device(kind)
        yield opened
        opened.close()


@pytest.fixture
def running(kind: str, device: Device) -> Runner:
    return lambda module: Running(kind, device, module)


def floats(*shape: int, seed: int = 0) -> Array:
    """Small whole numbers, so that sums are exact."""
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(np.float32)


def chain_and_diamond() -> IRModule:
    """``y = 4 x; z = y + 2 y``; y is an output too, and has readers after it is written."""
    b = Calls()
    x = b.parameter("x", tensor(b.n))
    y = b.call("double", b.call("double", x, out=tensor(b.n)), out=tensor(b.n), origin="Mul_1")
    z = b.call("add", y, b.call("double", y, out=tensor(b.n)), out=tensor(b.n))
    return b.module(z, y)


def test_chains_and_diamonds_of_any_length(running: Runner) -> None:
    graph = running(chain_and_diamond())
    for length in (0, 1, 1000):
        x = floats(length)
        z, y = graph(x)
        np.testing.assert_array_equal(y, 4 * x)
        np.testing.assert_array_equal(z, 12 * x)


def test_a_callee_with_several_results_and_parallel_loops(running: Runner) -> None:
    b = Calls()
    x = b.parameter("x", tensor(b.n, 64))
    squares, totals = b.items(b.call("both", x, out=(tensor(b.n, 64), tensor(b.n))))
    graph = running(b.module(squares, b.call("double", totals, out=tensor(b.n))))
    x_value = floats(200, 64)
    found = graph(x_value)
    np.testing.assert_array_equal(found[0], x_value * x_value)
    np.testing.assert_array_equal(found[1], 2 * x_value.sum(1))


def mirrored(x: Array) -> Array:
    return x + (x / 8).sum(1)[::-1, None]


def test_callees_lie_their_own_temporaries_in_the_callers_memory(running: Runner) -> None:
    b = Calls()
    x = b.parameter("x", tensor(b.n, 2000))
    kind = tensor(b.n, 2000)
    y = b.call("mirrored", b.call("mirrored", x, out=kind), out=kind)
    whole = dims.mul(b.n, 2000)
    total = b.call("add", b.view(x, whole), b.view(y, whole), out=tensor(whole))
    graph = running(b.module(b.view(total, b.n, 2000)))
    x_value = floats(3, 2000)
    np.testing.assert_allclose(graph(x_value)[0], x_value + mirrored(mirrored(x_value)), rtol=1e-6)


def test_views_are_the_same_memory_and_what_is_returned_twice_is_copied(running: Runner) -> None:
    b = Calls()
    x = b.parameter("x", tensor(b.n, 8))
    flat = b.view(x, dims.mul(b.n, 8))
    y = b.call("double", flat, out=tensor(dims.mul(b.n, 8)))
    back = b.view(y, b.n, 2, 4)
    graph = running(b.module(back, y, x, flat))
    value = floats(5, 8)
    found = graph(value)
    for got, expected in zip(found, (2 * value.reshape(5, 2, 4), 2 * value.reshape(-1), value, value.reshape(-1))):
        np.testing.assert_array_equal(got, expected)


def test_scalar_sizes_and_public_callees(running: Runner) -> None:
    b = Calls()
    x = b.parameter("x", tensor(64))
    r = b.call("repeated", b.call("halve", x, out=tensor(64)), out=tensor(192), sizes=(dims.dim(3),))
    graph = running(b.module(r))
    value = floats(64)
    np.testing.assert_array_equal(graph(value)[0], np.repeat(value / 2, 3))
    np.testing.assert_array_equal(graph(value, name="halve")[0], value / 2)


def test_constants_are_trailing_parameters_that_callers_do_not_give(running: Runner) -> None:
    weights = floats(64, seed=1)
    b = Calls()
    x, w = b.parameter("x", tensor(64)), b.constant(weights, "w")
    twice = b.call("double", w, out=tensor(64))
    graph = running(b.module(b.call("add", b.call("add", x, w, out=tensor(64)), twice, out=tensor(64))))
    (made,) = graph(name="main_prepare", constants=[weights])
    content = {"main_prepare:0": made, f"sha256:{sha256(weights.tobytes()).hexdigest()}": weights}
    entry = graph.entries["main"]
    texts = [p.constant for p in entry.parameters]
    assert texts[:2] == ["", ""]
    assert set(texts[2:]) == set(content)
    assert [p.name for p in entry.parameters[:2]] == ["x", "output"]
    value = floats(64)
    found = graph(value, constants=[content[text] for text in texts[2:]])
    np.testing.assert_array_equal(found[0], value + 3 * weights)


@pytest.mark.parametrize("failing", ["quotient", "positive"])
def test_a_failure_of_a_callee_is_the_callers(running: Runner, failing: str) -> None:
    b = Calls()
    kind = tensor(b.n, dtype="int32")
    x, y = b.parameter("x", kind), b.parameter("y", kind)
    q = b.call("quotient", x, y, out=kind)
    p = b.call("positive", q, out=kind)
    graph = running(b.module(b.call("quotient", p, y, out=kind)))
    one, two = np.ones(10, np.int32), np.full(10, 2, np.int32)
    np.testing.assert_array_equal(graph(two, one)[0], two)
    with pytest.raises(
        ProgramError,
        match="integer division by zero in function 'quotient'" if failing == "quotient" else "all are positive",
    ):
        graph(*((one, 0 * one) if failing == "quotient" else (one, two)))
    np.testing.assert_array_equal(graph(two, one)[0], two)


def test_sizes_that_only_the_call_knows_are_checked(running: Runner) -> None:
    b = Calls()
    x, y = b.parameter("x", tensor(b.n)), b.parameter("y", tensor(Var("m", "int64")))
    same = b.match_cast(y, tensor(b.n))
    graph = running(b.module(b.call("add", x, same, out=tensor(b.n))))
    value = floats(7)
    np.testing.assert_array_equal(graph(value, value)[0], 2 * value)
    with pytest.raises(ProgramError, match="dimension 0 of 'lv' is not what function 'main' says"):
        graph(value, floats(8))


def test_a_view_that_may_be_of_another_number_of_elements_is_checked(running: Runner) -> None:
    b = Calls()
    m = Var("m", "int64")
    x, y = b.parameter("x", tensor(b.n)), b.parameter("y", tensor(m, 2))
    doubled = b.view(b.call("double", x, out=tensor(b.n)), m, 2)
    graph = running(b.module(doubled, y))
    value = floats(6)
    np.testing.assert_array_equal(graph(value, floats(3, 2))[0], 2 * value.reshape(3, 2))
    for rows in (2, 4):  # what is written would not fit the output, or would not fill it
        with pytest.raises(ProgramError, match="number of elements of 'lv_1' is not what function 'main' says"):
            graph(value, floats(rows, 2))


def test_inputs_that_leave_a_size_below_zero_are_refused(running: Runner) -> None:
    b = Builder()
    x = b.parameter("x", tensor(Var("n", "int64"), 8))
    graph = running(IRModule({"main": b.function(b.op("sum", b.op("nn.pad", x, pad_width=(-2, -1, 0, 0)), axis=(0,)))}))
    for rows in (3, 5):
        value = floats(rows, 8)
        np.testing.assert_allclose(graph(value)[0], value[2:-1].sum(0), rtol=1e-6)
    with pytest.raises(ProgramError, match="a size in function 'main' is below 0: its inputs are too small"):
        graph(floats(2, 8))


def test_memory_is_used_again(running: Runner) -> None:
    for length in (1 << 16, None):
        b = Calls()
        n = b.n if length is None else length
        value = b.parameter("x", tensor(n))
        for _ in range(10):
            value = b.call("double", value, out=tensor(n))
        graph = running(b.module(value))
        x = floats(1 << 16)
        np.testing.assert_array_equal(graph(x)[0], 1024 * x)
        assert graph.workspace_bytes(x) == 2 * x.nbytes


def test_the_caller_alone_is_called(running: Runner) -> None:
    graph = running(chain_and_diamond())
    assert set(graph.entries) == {"main"}
    with pytest.raises(ArgumentError):
        graph(np.zeros((2, 2), np.float32))
