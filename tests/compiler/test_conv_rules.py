"""The convolution rules: whom they take, and that what they make computes the same."""

from __future__ import annotations

import numpy as np
import pytest

import crossfarm as cf
from compiler_service.schedules import choose_schedules
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import IntImm
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.target import Target
from tests.compiler.convolutions import Convolution
from tests.compiler.native import Native

TARGETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64-linux-generic")

DENSE = {
    "plain": Convolution(),
    "one by one": Convolution(channels=16, kernel=(1, 1), pad=0),
    "strided": Convolution(stride=2, filters=12),
    "dilated": Convolution(dilation=2, pad=2),
    "large window": Convolution(kernel=(7, 5), pad=3, channels=3),
    "filters that no tile divides": Convolution(filters=7),
    "one filter": Convolution(filters=1, channels=16),
    "wide": Convolution(height=3, width=131, channels=4),
    "tall": Convolution(height=131, width=3, channels=4),
    "prime image": Convolution(height=13, width=13, channels=8, filters=16),
    "grouped": Convolution(channels=8, filters=16, group=4),
    "grouped and strided": Convolution(channels=6, filters=9, group=3, stride=2, height=14, width=14),
    "batch": Convolution(batch=3),
    "followed by bias and relu": Convolution(fused=True),
    "grouped, followed by bias and relu": Convolution(fused=True, channels=8, filters=16, group=4),
    "groups that no tile divides, followed": Convolution(
        fused=True, channels=12, filters=28, group=7, kernel=(1, 1), pad=0
    ),
    "many small groups": Convolution(channels=16, filters=16, group=2, height=14, width=14),
    "many small groups, followed": Convolution(fused=True, channels=16, filters=16, group=2, height=7, width=7),
    "one filter, followed": Convolution(fused=True, filters=1, channels=16),
    "double": Convolution(dtype="float64"),
    "integers": Convolution(dtype="int32"),
    "deep": Convolution(channels=640, height=5, width=6, filters=8),
}

DEPTHWISE = {
    "plain": Convolution(channels=8, filters=8, group=1),
    "strided": Convolution(channels=8, filters=8, group=1, stride=2),
    "strided by three, dilated": Convolution(channels=8, filters=8, group=1, stride=3, dilation=2, height=17, width=29),
    "wide": Convolution(channels=3, filters=3, group=1, width=150, height=4),
    "wide and prime": Convolution(channels=3, filters=3, group=1, width=131, height=5),
    "five by five": Convolution(channels=4, filters=4, group=1, kernel=(5, 5), pad=2),
    "batch": Convolution(channels=8, filters=8, group=1, batch=3),
    "followed by bias and relu": Convolution(channels=8, filters=8, group=1, fused=True),
    "double": Convolution(channels=4, filters=4, group=1, dtype="float64"),
}


def arrays(module: IRModule, batch: int) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    found = []
    for param in module["main"].params:
        assert isinstance(param, Buffer)
        shape = tuple(d.value if isinstance(d, IntImm) else batch for d in param.shape)
        found.append((random.standard_normal(shape) * 8).astype(param.dtype))
    return found


def chosen(module: IRModule, target: str, block: str = "conv") -> str:
    choices = choose_schedules(module, Target(target).resolved()).choices
    return next(choice.rule for choice in choices if choice.block == block)


def check(module: IRModule, scheduled: IRModule, batch: int = 1) -> None:
    expected, got = arrays(module, batch), arrays(module, batch)
    run(module, "main", expected)
    run(scheduled, "main", got)
    np.testing.assert_allclose(got[-1], expected[-1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("target", TARGETS)
def test_a_scheduled_convolution_means_the_same(name: str, target: str) -> None:
    module = cf.parse(DENSE[name].text())
    made = choose_schedules(module, Target(target).resolved())
    assert chosen(module, target) == "conv2d"
    cf.verify(made.module)
    check(module, made.module)


@pytest.mark.parametrize("name", DENSE)
def test_a_convolution_built_for_this_machine_computes_the_same(name: str) -> None:
    module = cf.parse(DENSE[name].text())
    expected, got = arrays(module, 1), arrays(module, 1)
    run(module, "main", expected)
    Native(module, Target.detect())("main", *got)
    np.testing.assert_allclose(got[-1], expected[-1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", DEPTHWISE)
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4"])
def test_a_scheduled_depthwise_convolution_means_the_same(name: str, target: str) -> None:
    module = cf.parse(DEPTHWISE[name].text())
    made = choose_schedules(module, Target(target).resolved())
    assert chosen(module, target) == "depthwise"
    cf.verify(made.module)
    check(module, made.module)
    expected, got = arrays(module, 1), arrays(module, 1)
    run(module, "main", expected)
    Native(module, Target.detect())("main", *got)
    np.testing.assert_allclose(got[-1], expected[-1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_batch_of_a_depthwise_convolution_may_be_symbolic(batch: int) -> None:
    module = cf.parse(Convolution(channels=8, filters=8, group=1, batch="n", fused=True).text())
    made = choose_schedules(module, Target("x86-64-v3").resolved())
    assert chosen(module, "x86-64-v3") == "depthwise"
    check(module, made.module, batch)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("group", [0, 4])
@pytest.mark.parametrize("fused", [False, True])
def test_the_batch_may_be_symbolic(batch: int, group: int, fused: bool) -> None:
    module = cf.parse(Convolution(batch="n", channels=8, filters=16, group=group, fused=fused).text())
    made = choose_schedules(module, Target("x86-64-v3").resolved())
    assert chosen(module, "x86-64-v3") == "conv2d"
    check(module, made.module, batch)
    expected, got = arrays(module, batch), arrays(module, batch)
    run(module, "main", expected)
    Native(module, Target("x86-64-v3"))("main", *got)
    np.testing.assert_allclose(got[-1], expected[-1], rtol=1e-4, atol=1e-3)


def test_a_rules_trace_replays() -> None:
    module = cf.parse(Convolution(fused=True, filters=7).text())
    made = choose_schedules(module, Target("x86-64-v4").resolved())
    again = Schedule(module)
    made.traces["main"].apply_to(again)
    assert cf.structural_equal(again.module, made.module)


@pytest.mark.parametrize("target", TARGETS)
def test_rows_that_fit_no_cache_are_another_rules(target: str) -> None:
    video = Convolution(channels=64, height=1080, width=1920, filters=64)
    assert chosen(cf.parse(video.text()), target) not in ("", "conv2d")


def test_what_is_no_convolution_is_refused_with_the_reason() -> None:
    module = cf.parse(Convolution(channels=1, filters=2, height=3, width=3).text())
    choices = choose_schedules(module, Target("x86-64-v3").resolved()).choices
    refused = dict(next(c for c in choices if c.block == "conv").refused)
    assert refused["conv2d"] == "162 products are too few to lay out panels for"
    assert (
        "it is not one store with an initial value"
        in dict(next(c for c in choices if c.block == "padded").refused)["conv2d"]
    )
