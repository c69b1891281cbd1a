"""The loops behind the roofline do the work that they are credited with."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cpu.roofline import Roofline

SIZE = 1 << 20


@pytest.fixture
def roofline() -> Roofline:
    made = Roofline(SIZE)
    made.source[:] = np.random.default_rng(0).random(made.source.size, dtype=np.float32)
    return made


@pytest.mark.parametrize("kernel", ["copy", "stream"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_pass_copies_everything(roofline: Roofline, kernel: str, threads: int) -> None:
    assert roofline._passes(kernel, threads, 0) > 0
    assert np.array_equal(roofline.destination, roofline.source)


def test_reading_adds_up_every_element(roofline: Roofline) -> None:
    roofline.source.view(np.int32)[:] = np.arange(roofline.source.size, dtype=np.int32)
    roofline._passes("read", 1, 0)
    sums = roofline.destination.view(np.int32)[: 8 * roofline._lanes]
    assert int(sums.sum(dtype=np.int32)) == int(roofline.source.view(np.int32).sum(dtype=np.int32))


def test_the_peak_is_reached_by_chains_that_nobody_can_shorten(roofline: Roofline) -> None:
    roofline.source[:] = 1.0
    roofline.destination[:] = 2.0**-10
    roofline._passes("peak", 1, 0)
    results = roofline.destination[: 12 * roofline._lanes]
    assert np.all(results == 1 + 65536 * 2.0**-10)
