"""Traces: they replay, with the same or other decisions, are written and read, and say what no longer fits."""

from __future__ import annotations

import json
import math
from random import Random

import pytest

import crossfarm as cf
from crossfarm.errors import ScheduleError, TraceError
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.schedule.trace import Trace
from tests.schedule.programs import CHAIN, MATMUL, SYMBOLIC, check, schedule


def tiled(seed: int = 0) -> Schedule:
    """A matmul whose tiles were drawn at random."""
    sch = schedule(MATMUL, seed=seed)
    i, j, k = sch.get_loops(sch.get_block("C"))
    i0, i1 = sch.split(i, sch.sample_perfect_tile(i, 2))
    j0, j1 = sch.split(j, [None, sch.sample_categorical([2, 4, 5], [0.2, 0.3, 0.5])])
    sch.reorder(i0, j0, k, i1, j1)
    sch.annotate(sch.get_block("C"), "tile", {"of": ("a", 1.5, True, None, math.inf)})
    sch.vectorize(j1)
    return sch


def replayed(trace: Trace, text: str = MATMUL) -> Schedule:
    again = schedule(text)
    trace.apply_to(again)
    return again


@pytest.mark.parametrize("seed", range(5))
def test_a_trace_replays_on_the_module_it_was_made_from(seed: int) -> None:
    sch = tiled(seed)
    check(sch, MATMUL)
    again = replayed(sch.trace)
    assert cf.structural_equal(again.module, sch.module)
    assert again.trace == sch.trace


def test_a_trace_survives_being_written() -> None:
    trace = tiled().trace
    text = trace.to_json()
    assert Trace.from_json(text) == trace
    assert Trace.from_json(text).to_json() == text
    assert json.loads(text)["trace_version"] == 1
    assert cf.structural_equal(replayed(Trace.from_json(text)).module, tiled().module)


def test_a_trace_is_python() -> None:
    sch = tiled()
    scope: dict[str, object] = {"sch": schedule(MATMUL)}
    text = sch.trace.as_python()
    assert text.startswith('C = sch.get_block("C", "main")\ni, j, k = sch.get_loops(C)\n')
    exec(text, scope)  # noqa: S102 - what users do with it
    again = scope["sch"]
    assert isinstance(again, Schedule)
    assert cf.structural_equal(again.module, sch.module)


def test_a_trace_replays_with_other_decisions() -> None:
    trace = tiled().trace
    (tile, chosen), (width, _) = trace.decisions().items()
    other = trace.with_decision(tile, (2, 6) if chosen != (2, 6) else (6, 2)).with_decision(width, 2)
    again = replayed(other)
    assert "i_0" in again.module.script()
    assert "j_1 in T.vectorized(5)" in again.module.script()
    assert again.trace.decisions()[tile] != chosen
    check(again, MATMUL)


def test_a_decision_that_does_not_fit_is_refused_with_the_instruction() -> None:
    trace = tiled().trace
    (tile, _), *_ = trace.decisions().items()
    with pytest.raises(
        TraceError, match=r"instruction 2 of the trace, tile_0, tile_1 = sch.sample_perfect_tile.*not 2 factors"
    ):
        replayed(trace.with_decision(tile, (5, 7)))
    with pytest.raises(TraceError, match="instruction 0 makes no decision; those that do: 2, 4"):
        trace.with_decision(0, 1)


def test_a_trace_that_no_longer_fits_names_the_instruction() -> None:
    with pytest.raises(TraceError, match=r"instruction 1 of the trace, i, j, k = sch.get_loops\(C\)"):
        replayed(tiled().trace, CHAIN)
    with pytest.raises(TraceError, match=r"instruction 0 of the trace, C = .*no block 'C'"):
        replayed(tiled().trace, SYMBOLIC)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.update(trace_version=99), "version 99; this program reads 1 to 1"),
        (lambda data: data.pop("trace_version"), "no trace_version"),
        (lambda data: data.update(instructions={}), "list of at most"),
        (lambda data: data["instructions"][3].update(args=[{"ref": 3}]), "cannot read the argument"),
        (lambda data: data["instructions"][3].update(args=[{"expr": ["import", "os"]}]), "cannot read the expression"),
        (lambda data: data["instructions"][3].pop("primitive"), "instruction 3 of the trace names no primitive"),
        (lambda data: data["instructions"][3].update(outputs=["import os"]), "results without names"),
        (lambda data: data["instructions"][3].update(primitive="os.system('x') or split"), "which is no primitive"),
        (lambda data: data["instructions"][3].update(options={"a=1, b": 2}), "options that are not a mapping"),
    ],
)
def test_what_is_no_trace_is_refused(change: object, reason: str) -> None:
    data = json.loads(tiled().trace.to_json())
    change(data)  # type: ignore[operator]
    with pytest.raises(TraceError, match=reason):
        Trace.from_json(json.dumps(data))


@pytest.mark.parametrize("name", ["show", "copy", "_apply", "__init__", "get", "no_such"])
def test_a_trace_calls_primitives_alone(name: str) -> None:
    data = {"trace_version": 1, "instructions": [{"primitive": name}]}
    with pytest.raises(TraceError, match=f"no primitive '{name}'"):
        replayed(Trace.from_json(json.dumps(data)))


@pytest.mark.parametrize("args", [[], [3], [{"ref": "l9"}], ["C", 3, 4, 5], [{"map": {}}]])
def test_a_trace_with_arguments_of_another_kind_is_refused(args: list[object]) -> None:
    data = {"trace_version": 1, "instructions": [{"primitive": "split", "args": args, "outputs": ["l1"]}]}
    with pytest.raises(TraceError, match="instruction 0 of the trace"):
        replayed(Trace.from_json(json.dumps(data)))


def test_the_same_seed_gives_the_same_decisions() -> None:
    assert tiled(3).trace == tiled(3).trace
    assert len({str(tiled(seed).trace.decisions()) for seed in range(20)}) > 3


def test_every_factorization_is_drawn() -> None:
    sch = schedule(MATMUL)
    i, *_ = sch.get_loops(sch.get_block("C"))
    drawn = {sch.sample_perfect_tile(i, 3, max_innermost_factor=4) for _ in range(500)}
    assert drawn == {(a, b, c) for a in range(1, 13) for b in range(1, 13) for c in range(1, 5) if a * b * c == 12}


def test_sampling_refuses_what_cannot_be_drawn() -> None:
    sch = schedule(SYMBOLIC)
    i, _ = sch.get_loops(sch.get_block("B"))
    with pytest.raises(ScheduleError, match="no constant extent"):
        sch.sample_perfect_tile(i, 2)
    with pytest.raises(ScheduleError, match="1 candidates with 2 probabilities"):
        sch.sample_categorical([1], [0.5, 0.5])
    with pytest.raises(ScheduleError, match="are no probabilities"):
        sch.sample_categorical([1, 2], [0, 0])


def test_a_copy_goes_its_own_way() -> None:
    sch = schedule(MATMUL)
    i, j, _ = sch.get_loops(sch.get_block("C"))
    other = sch.copy()
    other.fuse(i, j)
    sch.split(i, [None, 4])
    assert len(other.trace) == len(sch.trace) == 3
    check(sch, MATMUL)
    check(other, MATMUL)


def test_references_of_another_schedule_are_not_taken() -> None:
    one, two = schedule(MATMUL), schedule(CHAIN)
    with pytest.raises(ScheduleError):
        two.parallel(one.get_loops(one.get_block("C"))[0])


def test_no_argument_of_a_trace_from_outside_is_met_by_anything_but_a_trace_error() -> None:
    random = Random(1)
    values: list[object] = [
        None, True, 0, 3, -1, 2.5, "C", "read", "root", [], [1, 2], [None, 4], ["read", 0], {"ref": "b0"},
        {"ref": "l1"}, {"ref": "l3"}, {"map": {}}, {"expr": ["int", 3, "int32"]}, {"expr": ["var", "n", "int64"]},
        {"index_map": {"inputs": [["i", "int32"]], "outputs": [["var", "i", "int32"]]}},
    ]  # fmt: skip
    start: list[dict[str, object]] = [
        {"primitive": "get_block", "args": ["C", "main"], "outputs": "b0"},
        {"primitive": "get_loops", "args": [{"ref": "b0"}], "outputs": ["l1", "l2", "l3"]},
    ]
    for _ in range(1000):
        made = schedule(MATMUL)
        strange = {
            "primitive": random.choice(sorted(made.primitives())),
            "args": [random.choice(values) for _ in range(random.randint(0, 4))],
        }
        trace = Trace.from_json(json.dumps({"trace_version": 1, "instructions": [*start, strange]}))
        try:
            trace.apply_to(made)
        except TraceError:
            continue
        cf.verify(made.module)
