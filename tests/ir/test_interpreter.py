"""What programs mean: statements, blocks, views, errors; and that running loops as lanes changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfarm.errors import ArgumentError, InvalidModule, NoSuchFunction, ProgramError
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir import interpreter
from crossfarm.ir.buffer import BufferRegion
from crossfarm.ir.expr import (
    Binary,
    Broadcast,
    BufferLoad,
    Call,
    Expr,
    IntImm,
    Let,
    Ramp,
    Range,
    StringImm,
    Var,
)
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import (
    Allocate,
    AssertStmt,
    Block,
    BufferStore,
    Evaluate,
    IfThenElse,
    LetStmt,
    MatchBufferRegion,
    SeqStmt,
    Stmt,
    While,
)
from crossfarm.ir.verify import verify
from tests.ir.programs import (
    axis,
    buffer,
    f32,
    i32,
    load,
    loop,
    module,
    op,
    point,
    realize,
    root,
    row_sums,
    scaled,
    store,
)

Array = np.ndarray[Any, Any]


def run(mod: IRModule, *args: Any, in_order: bool = False) -> None:
    verify(mod)
    interpreter.run(mod, "main", list(args), in_order=in_order)


def both_ways(mod: IRModule, *args: Array) -> list[Array]:
    """The arrays after a run as lanes, which must be those after a run step by step."""
    copies = [[a.copy() for a in args] for _ in range(2)]
    run(mod, *copies[0])
    run(mod, *copies[1], in_order=True)
    for a, b in zip(*copies):
        np.testing.assert_array_equal(a, b)
    return copies[0]


def corpus_cases(corpus: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((corpus / "index.json").read_text())
    return cases


def corpus_arguments(corpus: Path, case: dict[str, Any]) -> tuple[list[Any], list[tuple[Array, Array]]]:
    """Arguments in parameter order, and (output, expected) pairs among them."""
    with np.load(corpus / f"{case['name']}.npz") as stored:
        inputs = iter([stored[f"in_{n}"] for n in range(case["n_in"])])
        outputs = iter([stored[f"out_{n}"] for n in range(case["n_out"])])
    args: list[Any] = []
    pairs = []
    for parameter in case["params"]:
        if parameter["role"] == "in":
            args.append(next(inputs))
        else:
            want = next(outputs)
            args.append(np.zeros_like(want))
            pairs.append((args[-1], want))
    return args, pairs


@pytest.mark.parametrize("suffix", [".py", ".old.py"])
def test_every_corpus_program_gives_its_stored_outputs(corpus: Path, suffix: str) -> None:
    for case in corpus_cases(corpus):
        mod = parse((corpus / f"{case['name']}{suffix}").read_text(), case["name"])
        args, pairs = corpus_arguments(corpus, case)
        interpreter.run(mod, case["func"], args)
        for found, want in pairs:
            np.testing.assert_allclose(found, want, rtol=case["rtol"], atol=case["atol"], err_msg=case["name"])


SMALL = (
    "softmax_last", "argmax_axis1", "sum_axis1_keep", "pad_constant", "take_axis0", "gpu_add_bind", "onnx_hardswish",
    "sched_elemwise_imperfect", "concat_axis1", "dyn_softmax", "resize2d_nearest_x2",
)  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_lanes_give_the_very_bits_that_steps_give(corpus: Path, name: str) -> None:
    case = next(c for c in corpus_cases(corpus) if c["name"] == name)
    mod = parse((corpus / f"{name}.py").read_text(), name)
    results = []
    for in_order in (False, True):
        args, pairs = corpus_arguments(corpus, case)
        interpreter.run(mod, case["func"], args, in_order=in_order)
        results.append([found.tobytes() for found, _ in pairs])
    assert results[0] == results[1]


# --- lanes against steps, on random nests


VARS = Var("i"), Var("j"), Var("k")


def linear(a: int, b: int, c: int, d: int) -> Expr:
    terms: list[Expr] = [op("mul", v, i32(f)) for v, f in zip(VARS, (a, b, c)) if f]
    total: Expr = i32(d)
    for t in terms:
        total = op("add", total, t)
    return total


indices = st.builds(
    lambda e, divisor, how: op(how, e, i32(divisor)) if divisor > 1 else e,
    st.builds(linear, *[st.integers(0, 4)] * 3, st.integers(0, 3)),
    st.integers(1, 5),
    st.sampled_from(["floordiv", "floormod"]),
)


@st.composite
def nests(draw: st.DrawFn) -> IRModule:
    """Three loops of 3, 4 and 2 steps over a store whose index may or may not keep iterations apart."""
    a, c, d = (buffer(name, 64, dtype="int64") for name in "ACD")
    target = draw(indices)
    reads = [load(c, draw(st.one_of(st.just(target), indices))), load(draw(st.sampled_from([a, c, d])), draw(indices))]
    value = op("add", op("mul", reads[0], IntImm(3, "int64")), reads[1])
    body: Stmt = store(c, value, target)
    if draw(st.booleans()):
        body = SeqStmt((body, store(d, load(c, target), draw(indices))))
    if draw(st.booleans()):
        body = IfThenElse(op("lt", draw(indices), i32(draw(st.integers(1, 6)))), body)
    for var, extent in draw(st.permutations(list(zip(VARS, (3, 4, 2))))):
        body = loop(var, extent, body)
    return module(body, a, c, d)


@given(nests())
@settings(max_examples=150)
def test_random_nests_mean_the_same_as_lanes_and_step_by_step(mod: IRModule) -> None:
    both_ways(mod, *(np.arange(64) * factor + 1 for factor in (1, 7, 31)))


def test_lanes_are_not_used_where_arguments_overlap() -> None:
    a, b, i = buffer("A", 8), buffer("B", 8), Var("i")
    mod = module(loop(i, 8, store(b, op("add", load(a, i), f32(1)), i)), a, b)
    memory = np.zeros(9, "float32")
    run(mod, memory[:8], memory[1:])
    assert memory.tolist() == list(range(9))


def test_a_nest_larger_than_the_lanes_there_are_is_run_in_parts() -> None:
    n = 3 << 16
    a, b, i, j = buffer("A", 2, n), buffer("B", 2, n), Var("i"), Var("j")
    mod = module(loop(i, 2, loop(j, n, store(b, op("mul", load(a, i, j), f32(2)), i, j))), a, b)
    data = np.arange(2 * n, dtype="float32").reshape(2, n)
    out = np.zeros_like(data)
    run(mod, data, out)
    np.testing.assert_array_equal(out, data * 2)


# --- statements


def test_a_reduction_starts_with_its_init() -> None:
    a, b = np.arange(15, dtype="float32").reshape(3, 5), np.full(3, 99, "float32")
    assert both_ways(row_sums(), a, b)[1].tolist() == a.sum(1).tolist()


def test_a_block_runs_where_its_predicate_holds() -> None:
    a, i, v = buffer("A", 10), Var("i"), axis("v", 10)
    inner = Block("b", (v,), (), (point(a, v.var),), store(a, f32(1), v.var))
    mod = module(root(loop(i, 16, realize(inner, i, predicate=op("lt", i, i32(10))))), a)
    assert both_ways(mod, np.zeros(10, "float32"))[0].tolist() == [1] * 10


def test_symbolic_sizes_come_from_the_arguments() -> None:
    for size in (0, 1, 7):
        a, b = np.arange(size, dtype="float32"), np.zeros(size, "float32")
        run(scaled(), a, b)
        assert b.tolist() == (a * 2).tolist()


def test_scalars_lets_conditions_and_while() -> None:
    out, n, x, i = buffer("C", 2, dtype="int32"), Var("n"), Var("x"), Var("i")
    collatz = While(
        op("ne", load(out, 0), i32(1)),
        LetStmt(
            x,
            load(out, 0),
            SeqStmt(
                (
                    IfThenElse(
                        op("eq", op("mod", x, i32(2)), i32(0)),
                        store(out, op("div", x, i32(2)), 0),
                        store(out, op("add", op("mul", x, i32(3)), i32(1)), 0),
                    ),
                    store(out, op("add", load(out, 1), i32(1)), 1),
                )
            ),
        ),
    )
    mod = module(SeqStmt((store(out, n, 0), store(out, i32(0), 1), collatz)), n, out)
    c = np.zeros(2, "int32")
    run(mod, 27, c)
    assert c.tolist() == [1, 111]
    body = store(out, Let(i, i32(5), op("mul", i, i)), 0)
    run(module(body, out), c)
    assert c[0] == 25


def test_a_view_of_a_region_is_that_memory() -> None:
    a = buffer("A", 4, 6)
    s0, s1, offset = Var("s0"), Var("s1"), Var("o")
    view = buffer("W", 2, 3, strides=(s0, s1), elem_offset=offset)
    source = BufferRegion(a, (Range(i32(1), i32(2)), Range(i32(2), i32(3))))
    i = Var("i")
    told = Binary("add", Binary("mul", offset, i32(100)), Binary("add", Binary("mul", s0, i32(10)), s1))
    out = buffer("C", 1, dtype="int32")
    inner = Block(
        "b", (), (), (source, point(out, 0)),
        SeqStmt((loop(i, 3, store(view, f32(7), 1, i)), store(out, told, 0))),
        match_buffers=(MatchBufferRegion(view, source),),
    )  # fmt: skip
    data, c = np.zeros((4, 6), "float32"), np.zeros(1, "int32")
    run(module(root(realize(inner)), a, out), data, c)
    assert np.argwhere(data).tolist() == [[2, 2], [2, 3], [2, 4]]
    assert c.tolist() == [8 * 100 + 6 * 10 + 1]


def test_a_view_that_moves_is_matched_anew_each_time() -> None:
    a, k, offset = buffer("A", 6, dtype="int32"), Var("k"), Var("o")
    view = buffer("W", 2, dtype="int32", elem_offset=offset)
    v = axis("v", 3)
    source = BufferRegion(a, (Range(op("mul", v.var, i32(2)), i32(2)),))
    inner = Block("b", (v,), (), (source,), store(view, offset, 0), match_buffers=(MatchBufferRegion(view, source),))
    data = np.full(6, -1, "int32")
    run(module(root(loop(k, 3, realize(inner, k))), a), data)
    assert data.tolist() == [0, -1, 2, -1, 4, -1]


def test_arguments_may_be_views_with_strides() -> None:
    data = np.arange(20, dtype="float32").reshape(4, 5)
    b = np.zeros((10,), "float32")[::2]
    run(scaled(), data[:, 1][:4], b[:4])
    assert b.tolist() == [2, 12, 22, 32, 0]


def test_temporaries_hold_nothing_until_written() -> None:
    t, out = buffer("T", 1), buffer("C", 1)
    c = np.zeros(1, "float32")
    run(module(Allocate(t, store(out, load(t, 0), 0)), out), c)
    assert np.isnan(c[0])
    index, a = buffer("X", 1, dtype="int32"), buffer("A", 4)
    with pytest.raises(ProgramError, match="outside buffer 'A'"):
        run(module(Allocate(index, store(a, f32(0), load(index, 0))), a), np.zeros(4, "float32"))


def test_vectors_gather_compute_and_scatter_lane_by_lane() -> None:
    a, b = buffer("A", 8), buffer("B", 8)
    value = op("mul", BufferLoad(a, (Ramp(i32(0), i32(2), 4),)), Broadcast(f32(10), 4))
    mod = module(BufferStore(b, value, (Ramp(i32(7), i32(-1), 4),)), a, b)
    out = np.zeros(8, "float32")
    run(mod, np.arange(8, dtype="float32"), out)
    assert out.tolist() == [0, 0, 0, 0, 60, 40, 20, 0]


def test_thread_bound_loops_run_one_thread_after_the_other() -> None:
    a, i, j = buffer("A", 8), Var("i"), Var("j")
    body = store(a, f32(3), op("add", op("mul", i, i32(4)), j))
    mod = module(
        loop(i, 2, loop(j, 4, body, kind="thread_binding", thread="threadIdx.x"), kind="thread_binding",
             thread="blockIdx.x"), a)  # fmt: skip
    assert both_ways(mod, np.zeros(8, "float32"))[0].tolist() == [3] * 8


def test_lowered_threads_that_cooperate_are_refused() -> None:
    shared, t = buffer("S", 4, scope="shared"), Var("t")
    sync = Evaluate(Call("storage_sync", (StringImm("shared"),), "int32"))
    body = SeqStmt((store(shared, f32(0), t), sync))
    mod = module(Allocate(shared, loop(t, 4, body, kind="thread_binding", thread="threadIdx.x")))
    with pytest.raises(InvalidModule, match="threads cooperate through shared memory"):
        run(mod)


def test_memory_functions_of_c() -> None:
    a, b = buffer("A", 4, dtype="int32"), buffer("B", 4, dtype="int32")

    def address(x: Any, i: int) -> Expr:
        return Call("address_of", (load(x, i),), "handle")

    def c_call(name: str, *args: Expr) -> Stmt:
        return Evaluate(Call("call_extern", (StringImm(name), *args), "handle"))

    x, y = np.arange(4, dtype="int32"), np.full(4, 9, "int32")
    run(module(SeqStmt((c_call("memcpy", address(b, 1), address(a, 2), i32(8)),
                        c_call("memset", address(a, 0), i32(255), i32(4)))), a, b), x, y)  # fmt: skip
    assert (x.tolist(), y.tolist()) == ([-1, 1, 2, 3], [9, 2, 3, 9])
    with pytest.raises(ProgramError, match="memcpy of 12 bytes, where there are 8"):
        run(module(c_call("memcpy", address(b, 2), address(a, 0), i32(12)), a, b), x, y)


def test_returning_ends_the_function() -> None:
    a = buffer("A", 2)
    ret = Evaluate(Call("ret", (i32(0),), "int32"))
    data = np.zeros(2, "float32")
    run(module(SeqStmt((store(a, f32(1), 0), ret, store(a, f32(1), 1))), a), data)
    assert data.tolist() == [1, 0]


@pytest.mark.parametrize("in_order", [False, True])
def test_the_deepest_programs_allowed_do_not_exhaust_the_stack(in_order: bool) -> None:
    a = buffer("A", 1)
    value: Expr = load(a, 0)
    for n in range(90):
        value = op("add", Let(Var(f"x{n}", "float32"), f32(1), value), f32(1))
    nest: Stmt = store(a, f32(5), 0)
    for n in range(190):
        nest = loop(Var(f"i{n}"), 1, nest)
    data = np.zeros(1, "float32")
    run(module(SeqStmt((nest, store(a, value, 0))), a), data, in_order=in_order)
    assert data.tolist() == [95]


# --- errors of the program and of the caller


@pytest.mark.parametrize("in_order", [False, True])
def test_leaving_a_buffer_is_the_programs_error_and_names_where(in_order: bool) -> None:
    n, i = Var("n"), Var("i")
    a, b = buffer("A", n), buffer("B", 4)
    mod = module(loop(i, n, store(b, load(a, i), op("sub", i, i32(1)))), a, b)
    with pytest.raises(ProgramError, match=r"index \(-1\) is outside buffer 'B' of shape \(4,\) in function 'main'"):
        run(mod, np.zeros(3, "float32"), np.zeros(4, "float32"), in_order=in_order)


def test_a_guard_keeps_accesses_inside() -> None:
    n, i = Var("n"), Var("i")
    a, b = buffer("A", n), buffer("B", n)
    before = op("sub", i, i32(1))
    value = Call("if_then_else", (op("ge", before, i32(0)), load(a, before), f32(-1)), "float32")
    mod = module(loop(i, n, store(b, value, i)), a, b)
    data = np.arange(4, dtype="float32")
    assert both_ways(mod, data, np.zeros(4, "float32"))[1].tolist() == [-1, 0, 1, 2]


def test_a_failed_assertion_and_assumption_are_the_programs_errors() -> None:
    n = Var("n")
    positive = op("gt", n, i32(0))
    with pytest.raises(ProgramError, match="assertion failed: n is positive"):
        run(module(AssertStmt(positive, "n is positive"), n), 0)
    with pytest.raises(ProgramError, match="assumption"):
        run(module(Evaluate(Call("assume", (positive,), "int32")), n), 0)


F = np.zeros(4, "float32")
WRONG: dict[str, Callable[[], list[Any]]] = {
    r"main takes 2 arguments \(A, B\), not 1": lambda: [F],
    "parameter A is float32, the argument float64": lambda: [F.astype("float64"), F],
    "parameter A has 1 dimensions, the argument 2": lambda: [np.zeros((2, 2), "float32"), F],
    r"parameter B has shape \(4,\), the argument \(5,\)": lambda: [F, np.zeros(5, "float32")],
    "parameter B takes an array of float32, not a list": lambda: [F, [1.0]],
}


@pytest.mark.parametrize("said", WRONG)
def test_wrong_arguments_are_told_by_parameter(said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        interpreter.run(scaled(), "main", WRONG[said]())


@pytest.mark.parametrize(("value", "said"), [
    (1.5, "parameter n takes a number of int8, not a float"), (200, "parameter n is int8, which has no 200"),
    ("x", "takes a number of int8, not a str"),
])  # fmt: skip
def test_wrong_scalars_are_told_by_parameter(value: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        interpreter.run(module(SeqStmt(()), Var("n", "int8")), "main", [value])


def test_scalars_may_be_arrays_without_dimensions() -> None:
    n, out = Var("n"), buffer("C", 1, dtype="int32")
    c = np.zeros(1, "int32")
    run(module(store(out, n, 0), n, out), np.array(7), c)
    assert c.tolist() == [7]


def test_an_unknown_function_is_told_with_those_there_are() -> None:
    with pytest.raises(NoSuchFunction, match="it has: main"):
        interpreter.run(scaled(), "other", [])
