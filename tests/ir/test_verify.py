"""Every rule of well-formedness has a program that breaks it and nothing else first."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from crossfarm.errors import VerifyError
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.buffer import BufferRegion
from crossfarm.ir.expr import (
    Broadcast,
    Call,
    Cast,
    Expr,
    IntImm,
    Let,
    Not,
    Ramp,
    Range,
    Select,
    StringImm,
    Var,
)
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import (
    Allocate,
    AssertStmt,
    Block,
    BufferStore,
    Evaluate,
    For,
    LetStmt,
    MatchBufferRegion,
    SeqStmt,
    Stmt,
)
from crossfarm.ir.verify import RULES, verify
from tests.ir.graph_violations import GRAPH_VIOLATIONS
from tests.ir.programs import (
    TRUE,
    axis,
    buffer,
    const,
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

A, B = buffer("A", 4), buffer("B", 4)
N = buffer("N", 4, dtype="int32")
V = axis("v", 4)


def value(e: Expr) -> IRModule:
    """A program whose only purpose is to evaluate ``e``."""
    return module(Evaluate(e), A, N)


def call(name: str, *args: Expr, dtype: str = "float32") -> IRModule:
    return value(Call(name, args, dtype))


def block(**changes: object) -> IRModule:
    """``B[v] = A[v]`` over a loop, with the block changed."""
    plain = Block("copy", (V,), (point(A, V.var),), (point(B, V.var),), store(B, load(A, V.var), V.var))
    i = Var("i")
    return module(root(loop(i, 4, realize(replace(plain, **changes), i))), A, B)  # type: ignore[arg-type]


def reduction(body: Callable[[Var, Var], Stmt], init: Callable[[Var], Stmt]) -> IRModule:
    i, k, vi, vk = Var("i"), Var("k"), axis("vi", 4), axis("vk", 4, "reduce")
    inner = Block("sum", (vi, vk), (point(A, vk.var),), (BufferRegion(B, (Range(i32(0), i32(4)),)),),
                  body(vi.var, vk.var), init=init(vk.var))  # fmt: skip
    return module(root(loop(i, 4, loop(k, 4, realize(inner, i, k)))), A, B)


def twice_bound() -> IRModule:
    i = Var("i")
    return module(SeqStmt((loop(i, 4, store(A, f32(0), i)), loop(i, 4, store(A, f32(1), i)))), A)


def out_of_scope() -> IRModule:
    i = Var("i")
    return module(SeqStmt((loop(i, 4, store(A, f32(0), i)), store(A, f32(0), i))), A)


def deep() -> IRModule:
    e: Expr = f32(1)
    for _ in range(300):
        e = op("add", e, f32(1))
    return value(e)


def with_blocks_outside_root() -> IRModule:
    i = Var("i")
    inner = Block("copy", (V,), (), (point(B, V.var),), store(B, f32(0), V.var))
    return module(loop(i, 4, realize(inner, i)), B)


def allocated_twice() -> IRModule:
    t = buffer("T", 4)
    return module(SeqStmt((Allocate(t, store(t, f32(0), 0)), Allocate(t, store(t, f32(0), 0)))))


def matched(**changes: object) -> IRModule:
    view = replace(buffer("W", 2), **changes)  # type: ignore[arg-type]
    source = BufferRegion(A, (Range(i32(0), i32(2)),))
    inner = Block("b", (), (), (source,), store(view, const(0, view.dtype), 0), match_buffers=(
        MatchBufferRegion(view, source),))  # fmt: skip
    return module(root(realize(inner)), A)


def lonely_view() -> IRModule:
    inner = Block("b", (), (), (point(A, 0),), store(B, f32(0), 0), alloc_buffers=(B, B))
    return module(root(realize(inner)), A)


def repeated_axis() -> IRModule:
    inner = Block("b", (V, V), (), (point(B, V.var),), store(B, f32(0), V.var))
    return module(root(realize(inner, i32(0), i32(0))), B)


def called(name: str, *args: Expr) -> IRModule:
    """A caller of ``name``; there is ``callee(C: float32[n])``."""
    n = Var("n", "int64")
    caller = PrimFunc((A,), Evaluate(Call("call_function", (StringImm(name), *args), "int32")))
    return IRModule({"caller": caller, "callee": PrimFunc((buffer("C", n),), SeqStmt(()), private=True)})


X = i32(3)
VIOLATIONS: dict[str, Callable[[], IRModule]] = {
    "function-name": lambda: IRModule({"not a name": PrimFunc((), SeqStmt(()))}),
    "node-types": lambda: module(For(Var("i"), i32(0), i32(4), i32(0)), A),  # type: ignore[arg-type]
    "nesting-depth": deep,
    "variable-defined": out_of_scope,
    "defined-once": twice_bound,
    "constant-fits": lambda: value(IntImm(300, "int8")),
    "operands-agree": lambda: value(op("add", i32(1), f32(1))),
    "operator-domain": lambda: value(op("and", i32(1), i32(1))),
    "shift-amount": lambda: value(op("shl", i32(1), i32(32))),
    "not-bool": lambda: value(Not(i32(1))),
    "cast-shape": lambda: value(Cast(Broadcast(f32(1), 4), "int32")),
    "select-agrees": lambda: value(Select(TRUE, i32(1), f32(1))),
    "let-agrees": lambda: module(LetStmt(Var("x", "int64"), i32(1), SeqStmt(()))),
    "vector-parts": lambda: value(Ramp(f32(0), f32(1), 4)),
    "conditions-bool": lambda: module(AssertStmt(i32(1), "never")),
    "buffer-defined": lambda: module(store(B, f32(0), 0), A),
    "index-count": lambda: module(store(A, f32(0), 0, 0), A),
    "index-dtype": lambda: module(BufferStore(A, f32(0), (f32(0),)), A),
    "index-in-bounds": lambda: module(loop(i := Var("i"), 4, store(A, f32(0), op("add", i, i32(1)))), A),
    "intrinsic-arity": lambda: call("exp", f32(1), f32(1)),
    "intrinsic-dtype": lambda: call("exp", X, dtype="int32"),
    "if-then-else": lambda: call("if_then_else", X, f32(1), f32(1)),
    "reinterpret-width": lambda: call("reinterpret", f32(1), dtype="int64"),
    "count-result": lambda: call("clz", X, dtype="float32"),
    "dot-product": lambda: call("dot4", X, X, X, dtype="int32"),
    "assumption-bool": lambda: call("assume", X, dtype="int32"),
    "extern-allowed": lambda: call("call_extern", StringImm("system"), X, dtype="int32"),
    "addresses-to-extern": lambda: call("likely", Call("address_of", (load(A, 0),), "handle"), dtype="handle"),
    "effects-as-statements": lambda: value(op("add", Call("assume", (TRUE,), "int32"), i32(1))),
    "evaluate-calls": lambda: call("address_of", load(A, 0), dtype="handle"),
    "store-agrees": lambda: module(store(A, i32(0), 0), A),
    "loop-dtype": lambda: module(For(Var("i", "int64"), i32(0), i32(4), SeqStmt(()))),
    "loop-threads": lambda: module(loop(Var("i"), 4, SeqStmt(()), kind="thread_binding", thread="warp")),
    "vector-loop-extent": lambda: module(loop(Var("i"), n := Var("n"), SeqStmt(()), kind="vectorized"), n),
    "sequence-flat": lambda: module(SeqStmt((SeqStmt(()), SeqStmt(())))),
    "attribute-values": lambda: module(SeqStmt(()), attrs={"a": [1, 2]}),
    "axis-count": lambda: module(root(realize(Block("b", (V,), (), (), SeqStmt(()))))),
    "axis-values": lambda: module(root(realize(Block("b", (V,), (), (), SeqStmt(())), IntImm(0, "int64")))),
    "axis-domain": lambda: block(iter_vars=(replace(V, dom=Range(IntImm(0, "int64"), i32(4))),)),
    "axes-defined-once": repeated_axis,
    "buffers-defined-once": lonely_view,
    "init-without-reduce": lambda: reduction(
        lambda v, k: store(B, load(B, v), v), lambda k: store(B, f32(0), k)),
    "reduction-target": lambda: reduction(
        lambda v, k: store(B, f32(0), k), lambda k: store(B, f32(0), 0)),
    "region-shape": lambda: block(reads=(BufferRegion(A, ()),)),
    "region-in-bounds": lambda: block(reads=(BufferRegion(A, (Range(i32(2), i32(3)),)),)),
    "match-agrees": lambda: matched(dtype="int32"),
    "access-declared": lambda: block(reads=()),
    "parameter-kinds": lambda: module(SeqStmt(()), Var("p", "handle")),
    "attribute-names": lambda: IRModule({"main": PrimFunc((), SeqStmt(()), {"s_tir": True})}),
    "function-target": lambda: module(SeqStmt(()), attrs={"target": {"kind": "opencl", "sm": 53}}),
    "parameters-differ": lambda: module(SeqStmt(()), A, A),
    "block-form": with_blocks_outside_root,
    "buffer-dtype": lambda: module(SeqStmt(()), buffer("C", 4, dtype="float32x4")),
    "buffer-shape": lambda: module(SeqStmt(()), buffer("C", -1)),
    "buffer-align": lambda: module(SeqStmt(()), buffer("C", 4, align=48)),
    "allocated-once": allocated_twice,
    "calls-fit": lambda: called("callee", i32(3)),
    **GRAPH_VIOLATIONS,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(RULES))
def test_breaking_a_rule_is_refused_with_the_rules_name(name: str) -> None:
    with pytest.raises(VerifyError) as caught:
        verify(VIOLATIONS[name]())
    assert caught.value.details["rule"] == name
    assert f"rule {name}" in str(caught.value)
    assert caught.value.hint


ADDRESS = Call("address_of", (load(A, 0),), "handle")


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("nobody", (), "which is no tensor program"),
        ("caller", (ADDRESS, IntImm(4, "int64")), "which calls functions itself"),
        ("callee", (ADDRESS,), "1 arguments instead of 2"),
        ("callee", (i32(0), IntImm(4, "int64")), "gives int32 for 'C'"),
        ("callee", (ADDRESS, ADDRESS), "gives handle for 'n'"),
    ],
)
def test_calls_fit_what_they_call(name: str, args: tuple[Expr, ...], said: str) -> None:
    verify(called("callee", ADDRESS, IntImm(4, "int64")))
    with pytest.raises(VerifyError, match=said):
        verify(called(name, *args))


def test_no_violation_is_listed_for_a_rule_that_is_gone() -> None:
    assert set(VIOLATIONS) == set(RULES)


def test_every_rule_says_what_it_is() -> None:
    assert all(r.check.__doc__ and r.hint for r in RULES.values())


def test_an_error_names_function_node_and_next_step() -> None:
    with pytest.raises(VerifyError) as caught:
        verify(module(store(A, i32(0), 0), A))
    text = str(caught.value)
    assert "function 'main'" in text
    assert "int32 is stored to float32 of buffer A" in text
    assert "A[0] =" in text
    assert "next: cast the value" in text


@pytest.mark.parametrize("mod", [scaled(), row_sums(), block(), matched()])
def test_well_formed_programs_pass(mod: IRModule) -> None:
    verify(mod)


GUARDED = {
    "if_then_else": lambda i: store(
        A, Call("if_then_else", (op("lt", i, i32(3)), load(A, op("add", i, i32(1))), f32(0)), "float32"), i),
    "Select": lambda i: store(A, Select(op("lt", i, i32(3)), load(A, op("add", i, i32(1))), f32(0)), i),
    "and": lambda i: Evaluate(op("and", op("lt", i, i32(3)), op("gt", load(A, op("add", i, i32(1))), f32(0)))),
    "predicate": lambda i: realize(
        Block("b", (), (), (point(A, op("add", i, i32(1))),), store(A, f32(0), op("add", i, i32(1)))),
        predicate=op("lt", i, i32(3))),
}  # fmt: skip


@pytest.mark.parametrize("how", GUARDED)
def test_an_index_that_a_condition_guards_is_not_called_out_of_bounds(how: str) -> None:
    i = Var("i")
    verify(module(root(loop(i, 4, GUARDED[how](i))), A))


def test_an_index_through_axes_is_followed_to_its_loops() -> None:
    i, v = Var("i"), axis("v", 8)
    inner = Block("b", (v,), (), (point(A, v.var),), store(A, f32(0), v.var))
    program = module(root(loop(i, 4, realize(inner, op("mul", i, i32(2))))), A)
    with pytest.raises(VerifyError, match=r"index 0 of A is 0 to 6, outside its dimension of 4"):
        verify(program)


def test_a_symbolic_size_is_defined_by_a_bare_dimension_only() -> None:
    n = Var("n")
    verify(module(SeqStmt(()), buffer("P", op("add", n, i32(1))), buffer("Q", n)))
    with pytest.raises(VerifyError, match="n is not defined"):
        verify(module(SeqStmt(()), buffer("P", op("add", n, i32(1)))))


def test_a_vector_store_agrees_in_lanes() -> None:
    verify(module(BufferStore(A, Broadcast(f32(0), 4), (Ramp(i32(0), i32(1), 4),)), A))
    with pytest.raises(VerifyError, match="float32 is stored to float32x4"):
        verify(module(BufferStore(A, f32(0), (Ramp(i32(0), i32(1), 4),)), A))


def test_libm_calls_are_about_their_own_dtype() -> None:
    verify(call("call_pure_extern", StringImm("erff"), f32(1)))
    verify(call("call_pure_extern", StringImm("erf"), const(1, "float64"), dtype="float64"))
    with pytest.raises(VerifyError, match="erf is about float64"):
        verify(call("call_pure_extern", StringImm("erf"), f32(1)))


def test_let_expressions_bind_for_their_body() -> None:
    x = Var("x", "float32")
    verify(value(Let(x, load(A, 0), op("add", x, x))))


def test_the_deepest_program_allowed_does_not_exhaust_the_stack() -> None:
    body: Stmt = store(A, f32(0), 0)
    for n in range(150):
        body = loop(Var(f"i{n}"), 1, body)
    verify(module(body, A))


def test_every_corpus_program_in_both_dialects_is_well_formed(corpus: Path) -> None:
    for case in json.loads((corpus / "index.json").read_text()):
        for suffix in (".py", ".old.py"):
            name = f"{case['name']}{suffix}"
            verify(parse((corpus / name).read_text(), name))
