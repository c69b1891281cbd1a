"""Memory of functions of calls: nothing that lives at once overlaps, and little more is taken than must be."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from compiler_service.passes.plan_calls import plan_calls
from compiler_service.passes.workspace import round_up, workspace_plan
from compiler_service.symbols import index_expr
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import CALLS, ProgramCall, address_of, calls_of, element_of
from crossfarm.ir.expr import Binary, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph import dims
from crossfarm.ir.stmt import Allocate, Block, BlockRealize, SeqStmt
from crossfarm.ir.visitor import seq
from tests.compiler.native import evaluate

ALIGN = 64
N = Var("n", "int64")
TRUE = IntImm(1, "bool")


def value_of(size: Expr, n: int) -> int:
    return evaluate(index_expr(size, (N,), "a size"), [n])


@dataclass(frozen=True)
class Life:
    """A value: bytes, times n where symbolic, and the calls from which and to which it is used.

    ``less`` is taken from n, which may leave a number below 0: nobody's bytes.
    """

    size: int
    symbolic: bool
    first: int
    last: int
    less: int = 0

    @property
    def shape(self) -> tuple[Expr, ...]:
        rows = (dims.sub(N, self.less),) if self.symbolic else ()
        return (*rows, IntImm(self.size, "int64"))

    def bytes(self, n: int) -> int:
        return -(-self.size * (max(n - self.less, 0) if self.symbolic else 1) // ALIGN) * ALIGN


CALL_COUNT = 8
LIVES = st.builds(
    lambda size, symbolic, ends, less: Life(size, symbolic, min(ends), max(ends), less),
    st.one_of(st.integers(0, 500), st.integers(500, 5000)),
    st.booleans(),
    st.tuples(st.integers(0, CALL_COUNT - 1), st.integers(0, CALL_COUNT - 1)),
    st.sampled_from((0, 0, 3)),
)


def planned(lives: list[Life], own: list[int]) -> tuple[PrimFunc, list[list[tuple[int, Expr]]]]:
    """A function whose values live so, each call of which has ``own`` bytes for itself; and of each call which life is
    where, the callee's own memory last as life -1."""
    anchor = Buffer("x", (N,), "uint8")
    buffers = [Buffer(f"v{i}", life.shape, "uint8") for i, life in enumerate(lives)]
    callees, statements, touched = {}, [], []
    for at, need in enumerate(own):
        here = [i for i, life in enumerate(lives) if life.first <= at <= life.last]
        temporary = Buffer("t", (IntImm(need, "int64"),), "uint8")
        body = Allocate(temporary, SeqStmt(()), {"place": 0, "bytes": need}) if need else SeqStmt(())
        callees[f"f{at}"] = PrimFunc((*(Buffer("p", lives[i].shape, "uint8") for i in here), anchor), body)
        args = [address_of(buffers[i]) for i in here] + [address_of(anchor)]
        statements.append(ProgramCall(f"f{at}", (*args, N)).statement())
        touched.append(here)
    block = Block("root", (), (), (), seq(*statements), alloc_buffers=tuple(buffers))
    func = plan_calls(PrimFunc((anchor,), BlockRealize((), TRUE, block), {CALLS: True}), callees, ALIGN)
    starts = dict(zip(_regions(func), workspace_plan(func).offsets))
    places = []
    for call, here, need in zip(calls_of(func), touched, own):
        loads = [element_of(a) for a in call.args[: len(here)]] + ([element_of(call.args[-1])] if need else [])
        where: list[Expr] = [Binary("add", starts[load.buffer], load.indices[0]) for load in loads]
        places.append(list(zip([*here, -1], where)))
    return func, places


def _regions(func: PrimFunc) -> list[Buffer]:
    found, body = [], func.body
    while isinstance(body, Allocate):
        found.append(body.buffer)
        body = body.body
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(LIVES, min_size=1, max_size=12),
    st.lists(st.integers(0, 300), min_size=CALL_COUNT, max_size=CALL_COUNT),
    st.integers(0, 9),
)
def test_what_is_used_at_once_does_not_overlap_and_stays_where_it_is(lives: list[Life], own: list[int], n: int) -> None:
    func, places = planned(lives, own)
    total = value_of(workspace_plan(func).size, n)
    home: dict[int, int] = {}
    for at, here in enumerate(places):
        spans = []
        for life, where in here:
            start, size = value_of(where, n), lives[life].bytes(n) if life >= 0 else -(-own[at] // ALIGN) * ALIGN
            assert start % ALIGN == 0
            assert start + size <= total
            assert life < 0 or home.setdefault(life, start) == start
            spans.append((start, start + size))
        assert all(a[1] <= b[0] or b[1] <= a[0] for a, b in combinations(spans, 2) if a[0] < a[1] and b[0] < b[1])
    needed = sum(life.bytes(n) for life in lives) + sum(value_of(round_up(IntImm(b, "int64"), ALIGN), 0) for b in own)
    assert total <= needed * 9 // 8 + ALIGN * len(places)


def test_a_chain_takes_no_more_than_its_two_largest_neighbours() -> None:
    sizes = [640, 128, 1280, 64, 320, 960, 192]
    lives = [Life(size, False, at, at + 1) for at, size in enumerate(sizes)]
    func, _ = planned(lives, [0] * CALL_COUNT)
    assert value_of(workspace_plan(func).size, 0) == max(a + b for a, b in pairwise(sizes)) == 1408
    func, _ = planned([Life(size, True, at, at + 1) for at, size in enumerate(sizes)], [0] * CALL_COUNT)
    assert value_of(workspace_plan(func).size, 3) == 3 * (1280 + 320 + 64), "small regions are shared as wholes"
    large = [Life(8 * size, True, at, at + 1) for at, size in enumerate(sizes)]
    func, _ = planned(large, [0] * CALL_COUNT)
    assert value_of(workspace_plan(func).size, 3) == 3 * 8 * 1408


def test_a_callees_own_memory_is_used_again_by_the_next() -> None:
    func, _ = planned([Life(64, False, 0, CALL_COUNT - 1)], [128] * CALL_COUNT)
    assert value_of(workspace_plan(func).size, 0) == 64 + 128
