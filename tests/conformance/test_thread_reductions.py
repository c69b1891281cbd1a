"""Reductions whose steps a schedule binds to threads, on devices where threads really run at once."""

from __future__ import annotations

import numpy as np
import pytest

from crossfarm.errors import BuildFailed
from crossfarm.ir import te
from crossfarm.ir.module import IRModule
from tests.compiler.thread_reductions import PROGRAMS, shapes_of
from tests.conformance.conftest import OnDevice, check


@pytest.mark.parametrize("name", PROGRAMS)
def test_threads_that_share_a_reduction_give_its_result(name: str, on_device: OnDevice, kind: str) -> None:
    module = PROGRAMS[name]
    if kind == "cpu":
        with pytest.raises(BuildFailed, match="is bound to"):
            on_device.load(module)
        return
    shapes = shapes_of(module.prim_func("main"))
    rng = np.random.default_rng(9)
    a, b = (rng.integers(-8, 8, shape).astype(np.float32) for shape in shapes[:2])  # exact in any order of adding
    check(on_device, module, "main", [a, b, np.zeros(shapes[2], np.float32)])


@pytest.mark.parametrize("steps", [3, 17])
def test_a_short_reduction_to_one_element(steps: int, on_device: OnDevice) -> None:
    a, b = te.placeholder((steps,), name="a"), te.placeholder((steps,), name="b")
    k = te.reduce_axis((0, steps), name="k")
    c = te.compute((), lambda: te.sum(a[k] * b[k], axis=k), name="c")
    values = np.random.default_rng(7).integers(-8, 8, (2, steps)).astype(np.float32)
    module = IRModule({"main": te.create_prim_func([a, b, c])})
    check(on_device, module, "main", [*values, np.zeros((), np.float32)])
