"""Any sequence of primitives, sensible or not, leaves a right program: each is applied or refused, nothing between.

After the accepted ones the module is well-formed, reads back as printed, computes what it computed before (up to the
order of sums), and comes out again when the trace is replayed, also through JSON. ``make test-schedules`` tries many
thousands of sequences.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import crossfarm as cf
from crossfarm.errors import ScheduleError
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import IntImm, Var
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.schedule.trace import Trace
from crossfarm.ir.structural import explain_difference
from tests.compiler.native import Native
from tests.conftest import CORPUS
from tests.schedule.property_programs import PROGRAMS
from tests.schedule.random_steps import Steps

MAX_STEPS = 10
#: Interpreting larger tensors takes too long to do it often.
MOST_ELEMENTS = 1 << 14
#: Values of symbolic sizes: nothing divides them.
SIZES = (5, 7, 3, 4, 6)

#: A sequence takes some ten milliseconds. ``make test-schedules`` asks for more of them.
EXAMPLES = int(os.environ.get("CROSSFARM_TEST_SCHEDULES", "15"))

Array = np.ndarray[Any, Any]
quick = settings(
    deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def arguments(module: IRModule, func: str) -> list[Any]:
    """Small integers for a function's parameters, so that float sums are exact in any order; the same each time."""
    random = np.random.default_rng(3)
    sizes: dict[Any, int] = {}
    tensors: list[Any] = []
    for param in module[func].params:
        if isinstance(param, Var):
            tensors.append(sizes.setdefault(param, SIZES[len(sizes)]))
            continue
        shape = [
            d.value if isinstance(d, IntImm) else sizes.setdefault(d, SIZES[len(sizes) % len(SIZES)])
            for d in param.shape
        ]
        low = 0 if dt.is_unsigned(param.dtype) or dt.is_bool(param.dtype) else -4
        tensors.append(
            random.integers(low, 2 if dt.is_bool(param.dtype) else 5, shape).astype(dt.to_numpy(param.dtype))
        )
    return tensors


def stored_arguments(case: dict[str, Any]) -> list[Any]:
    """What the corpus gives a program: its inputs, and outputs to be overwritten."""
    data, results = np.load(CORPUS / f"{case['name']}.npz"), []
    names = iter(f"in_{n}" for n in range(case["n_in"]))
    outputs = iter(f"out_{n}" for n in range(case["n_out"]))
    for param in case["params"]:
        array = data[next(names if param["role"] == "in" else outputs)]
        results.append(int(array) if param["kind"] == "scalar" else np.array(array, copy=True))
    return results


def same(found: list[Any], expected: list[Any]) -> None:
    for a, e in zip(found, expected):
        if isinstance(e, np.ndarray) and e.dtype.kind in "iub":
            np.testing.assert_array_equal(a, e)
        elif isinstance(e, np.ndarray):
            tolerance = 2e-2 if e.dtype.itemsize == 2 else 1e-4
            np.testing.assert_allclose(a.astype(np.float64), e.astype(np.float64), rtol=tolerance, atol=tolerance)


def replayed(trace: Trace, module: IRModule) -> IRModule:
    again = Schedule(module)
    trace.apply_to(again)
    return again.module


def random_schedule(data: st.DataObject, module: IRModule, func: str, without: tuple[str, ...] = ()) -> Schedule:
    """A schedule after some steps; each refused one left everything as it was."""
    sch = Schedule(module, seed=0)
    steps = Steps(data, sch, func, without)
    for _ in range(data.draw(st.integers(1, MAX_STEPS))):
        before = sch.module
        try:
            steps.apply_one()
        except ScheduleError:
            if sch.module is not before:  # a step of two primitives, of which the second was refused
                cf.verify(sch.module)
            continue
        cf.verify(sch.module)
    return sch


def check(sch: Schedule, module: IRModule, func: str, given: Callable[[], list[Any]]) -> None:
    """Args:
    given: makes the function's arguments, the same each time.
    """
    for other in (
        cf.parse(sch.module.script()),
        replayed(sch.trace, module),
        replayed(Trace.from_json(sch.trace.to_json()), module),
    ):
        assert explain_difference(other, sch.module) is None
    found, expected = given(), given()
    run(sch.module, func, found)
    run(module, func, expected)
    same(found, expected)


@cache
def parsed(name: str) -> IRModule:
    return cf.parse(PROGRAMS[name])


@pytest.mark.parametrize("name", PROGRAMS)
@given(data=st.data())
@quick
def test_random_schedules_keep_what_a_program_computes(name: str, data: st.DataObject) -> None:
    module = parsed(name)
    check(random_schedule(data, module, "main"), module, "main", lambda: arguments(module, "main"))


@given(data=st.data())
@quick
def test_random_schedules_compile_to_what_the_interpreter_says(data: st.DataObject) -> None:
    module = parsed(data.draw(st.sampled_from(list(PROGRAMS))))
    sch = random_schedule(data, module, "main", without=("bind",))
    native = Native(sch.module, opt_level=1, opt_level_set=True)
    found, expected = arguments(module, "main"), arguments(module, "main")
    native("main", *found)
    run(module, "main", expected)
    same(found, expected)


@cache
def corpus_cases() -> dict[str, dict[str, Any]]:
    """Programs of the corpus that are small enough to be interpreted often."""
    if not CORPUS.exists():
        return {}
    cases = {case["name"]: case for case in json.loads((CORPUS / "index.json").read_text())}
    sizes = {
        name: max(int(np.prod(param.get("actual_shape") or [1])) for param in case["params"])
        for name, case in cases.items()
    }
    return {n: c for n, c in cases.items() if sizes[n] <= MOST_ELEMENTS and not c["needs_gpu_mapping"]}


@cache
def of_corpus(name: str) -> IRModule:
    return cf.load(CORPUS / f"{name}.py")


@pytest.mark.usefixtures("corpus")
@given(data=st.data())
@quick
def test_random_schedules_keep_what_programs_of_the_corpus_compute(data: st.DataObject) -> None:
    case = corpus_cases()[data.draw(st.sampled_from(sorted(corpus_cases())))]
    module = of_corpus(case["name"])
    sch = random_schedule(data, module, case["func"])
    check(sch, module, case["func"], lambda: stored_arguments(case))
