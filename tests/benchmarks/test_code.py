"""The comparison of code: its programs compute what they are named after, and its arithmetic is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import crossfarm as cf
from benchmarks.cpu import programs, works
from benchmarks.cpu.sides import Unsupported
from benchmarks.cpu.tables import Goal, geometric_mean, rates, times
from benchmarks.cpu.turns import OURS, Effort, Measured, bound_of, measure
from benchmarks.cpu.works import Work
from benchmarks.peers.numpy_code import prepare
from benchmarks.peers.serving import inputs, samples
from benchmarks.report import Samples
from crossfarm.ir.interpreter import run
from crossfarm.ir.verify import verify

ROWS, COLUMNS = 5, 7
QUICK = Effort(rounds=2, repeat=3)


def interpreted(program: str, arrays: list[Any], output: tuple[int, ...]) -> Any:
    module = cf.parse(program)
    verify(module)
    result = np.zeros(output, np.float32)
    run(module, "main", [*arrays, result])
    return result


@pytest.mark.parametrize(
    ("op", "program", "sizes"),
    [
        ("matmul", programs.matmul, {"batch": 1, "m": 3, "n": 5, "k": 4}),
        ("matmul", programs.matmul, {"batch": 2, "m": 3, "n": 5, "k": 4}),
        ("softmax", programs.softmax, {"rows": ROWS, "columns": COLUMNS}),
        ("layer_norm", programs.layer_norm, {"rows": ROWS, "columns": COLUMNS}),
        ("transpose", programs.transpose, {"rows": ROWS, "columns": COLUMNS}),
        *(
            (
                f"sum_{axis}",
                lambda axis=axis, **sizes: programs.sum_of(axis, **sizes),
                {"rows": ROWS, "columns": COLUMNS},
            )
            for axis in ("last", "first", "all")
        ),
    ],
)
def test_a_program_computes_what_numpy_is_told_to(op: str, program: Callable[..., str], sizes: dict[str, int]) -> None:
    peer = prepare({"op": op, "sizes": sizes})
    peer.run(1)
    expected = peer.output()
    module = cf.parse(program(**sizes))
    shapes = [tuple(extent.value for extent in param.shape) for param in module["main"].params]
    found = interpreted(program(**sizes), inputs(*shapes[:-1]), shapes[-1])
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("channels", "out_channels", "groups"), [(4, 6, 1), (4, 4, 4), (4, 6, 2)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_a_convolution_is_the_sum_over_its_window(
    channels: int, out_channels: int, groups: int, kernel: int, stride: int
) -> None:
    height, pad = 8, kernel // 2
    out = -(-height // stride)
    x, w = inputs((1, channels, height, height), (out_channels, channels // groups, kernel, kernel))
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    expected = np.zeros((1, out_channels, out, out), np.float32)
    for f in range(out_channels):
        first = f // (out_channels // groups) * (channels // groups)
        for y in range(out):
            for at in range(out):
                window = padded[0, first : first + channels // groups, y * stride :, at * stride :]
                expected[0, f, y, at] = (window[:, :kernel, :kernel] * w[f]).sum()
    program = programs.conv2d(channels, height, out_channels, kernel, stride, groups)
    np.testing.assert_allclose(interpreted(program, [x, w], expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_resnet_has_23_distinct_convolutions_and_each_is_listed_once() -> None:
    listed = [tuple(work.sizes.values()) for work in works.resnet_convolutions(quick=False)]
    assert len(listed) == len(set(listed)) == 23


def test_every_program_of_the_comparison_is_well_formed() -> None:
    for make in (works.matmuls, works.resnet_convolutions, works.depthwise_convolutions, works.memory_bound):
        for work in make(quick=False):
            module = cf.parse(work.program)
            verify(module)
            shapes = [tuple(extent.value for extent in param.shape) for param in module["main"].params]
            assert shapes == [*work.inputs, work.output]


@pytest.mark.parametrize(
    ("work", "bound"),
    [
        (works.matmul("square", 1, 512, 512, 512), "peak"),
        (works.matmul("one row", 1, 1, 512, 512), "read"),
        (Work("copy", "transpose", {}, "", ((64, 64),), (64, 64)), "copy"),
        (Work("sum", "sum_last", {}, "", ((64, 64),), (64,)), "read"),
    ],
)
def test_a_work_is_held_against_what_bounds_it(work: Work, bound: str) -> None:
    assert bound_of(work)[0] == bound


class Clock:
    """A side whose runs take ``seconds``."""

    def __init__(self, seconds: float, values: list[float] | None = None, *, able: bool = True) -> None:
        self.seconds, self.values, self.able = seconds, values or [1.0], able
        self.measured = 0

    def prepare(self, work: Work) -> float:
        if not self.able:
            raise Unsupported("not this")
        return self.seconds

    def measure(self, repeat: int, min_seconds: float) -> list[float]:
        self.measured += 1
        return [self.seconds] * repeat

    def settle(self) -> None:
        pass

    def result(self) -> list[float]:
        return self.values


WORK = works.matmul("small", 1, 8, 8, 8)


def test_every_side_is_measured_in_each_round() -> None:
    found = measure(WORK, {OURS: Clock(0.01), "peer": Clock(0.02)}, QUICK)
    assert [len(samples.values) for samples in found.seconds.values()] == [6, 6]
    assert found.speed("peer") == pytest.approx(2)


def test_a_side_that_takes_long_gets_one_sample() -> None:
    slow = Clock(2.0)
    found = measure(WORK, {OURS: Clock(0.01), "peer": slow}, QUICK)
    assert (slow.measured, found.seconds["peer"].values) == (0, [2.0])


def test_a_side_that_cannot_do_a_work_is_absent() -> None:
    found = measure(WORK, {OURS: Clock(0.01), "peer": Clock(1, able=False)}, QUICK)
    assert list(found.seconds) == [OURS]
    assert found.speed("peer") is None


def test_a_wrong_result_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="different results"):
        measure(WORK, {OURS: Clock(0.01, [1.0]), "peer": Clock(0.01, [1.5])}, QUICK)


def seconds(**medians: float) -> Measured:
    return Measured(WORK, {side: Samples([value]) for side, value in medians.items()})


def test_a_goal_holds_us_against_the_best_of_the_others() -> None:
    goal = Goal(0.85, ("a", "b"), "BLAS")
    assert goal.cells(seconds(crossfarm=1.0, a=0.9, b=2.0)) == ("≥ 0.85 × BLAS", "yes")
    assert goal.cells(seconds(crossfarm=1.0, a=0.8, b=2.0)) == ("≥ 0.85 × BLAS", "no")
    assert goal.cells(seconds(a=0.8)) == ("≥ 0.85 × BLAS", "")


def test_the_geometric_mean_is_of_the_values_there_are() -> None:
    assert geometric_mean([2.0, None, 8.0]) == pytest.approx(4)
    assert geometric_mean([None]) is None


def test_a_table_of_rates_shows_every_side_and_the_better_ratio() -> None:
    table = rates(
        "Products", [seconds(crossfarm=1e-9, a=2e-9)], (OURS, "a", "b"), lambda _: 8, "GFLOP/s", ("best", ("a", "b")),
        lambda _: None,
    )  # fmt: skip
    assert table.rows == [("small", "8", "4", "–", "2.00", "", "", "")]


def test_a_table_of_times_ends_with_the_geometric_mean_and_the_verdict() -> None:
    found = [seconds(crossfarm=2e-3, a=1e-3), seconds(crossfarm=1e-3, a=2e-3)]
    table = times("Convolutions", found, (OURS, "a"), ("a",), limit=1.5)
    assert [row[3] for row in table.rows] == ["2.00", "0.50", "1.00"]
    assert table.notes[-1].endswith("; met.")


def test_samples_last_as_long_as_asked() -> None:
    asked = []

    class Runner:
        def run(self, times: int) -> float:
            asked.append(times)
            return 1e-4

        def output(self) -> Any:
            raise NotImplementedError

    assert samples(Runner(), 3, 0.01) == [1e-4] * 3
    assert asked[-1] >= 100
