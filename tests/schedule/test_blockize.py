"""blockize keeps what is computed, gives the new block the loops above as axes, and refuses what does not divide."""

from __future__ import annotations

import pytest

import crossfarm as cf
from crossfarm.errors import ScheduleError
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.stmt import Block
from tests.schedule.programs import CHAIN, MATMUL, check, schedule

#: 12 by 10 in tiles of 5 by 4, which divide neither.
TILED = """
@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((12, 8), "float32"), B: T.Buffer((8, 10), "float32"), C: T.Buffer((12, 10), "float32")):
        for i0, j0, k0, i1, j1, k1 in T.grid(3, 3, 2, 5, 4, 4):
            with T.block("C"):
                vi = T.axis.spatial(12, i0 * 5 + i1)
                vj = T.axis.spatial(10, j0 * 4 + j1)
                vk = T.axis.reduce(8, k0 * 4 + k1)
                T.where(i0 * 5 + i1 < 12 and j0 * 4 + j1 < 10)
                with T.init():
                    C[vi, vj] = T.float32(0)
                C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
"""


def one_loop(value: str, extent: int, size: int, *, predicate: str = "") -> str:
    """A copy of ``size`` elements over loops ``i`` and ``j`` of 4 and ``extent`` steps."""
    where = f"\n                T.where({predicate})" if predicate else ""
    return f"""
@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer(({size},), "float32"), B: T.Buffer(({size},), "float32")):
        for i, j in T.grid(4, {extent}):
            with T.block("B"):
                v = T.axis.spatial({size}, {value}){where}
                B[v] = A[v]
"""


def block(sch: Schedule, name: str) -> Block:
    found = sch.get(sch.get_block(name))
    assert isinstance(found, Block)
    return found


def test_the_loops_above_become_the_axes_of_a_block_with_the_old_one_inside() -> None:
    sch = schedule(CHAIN)
    _, j = sch.get_loops(sch.get_block("C"))
    outer = sch.blockize(j)
    check(sch, CHAIN)
    assert outer.name == "C_o"
    assert [axis.kind for axis in block(sch, "C_o").iter_vars] == ["spatial", "spatial"]
    assert [b.name for b in sch.get_child_blocks(outer)] == ["C"]
    assert [b.name for b in sch.get_consumers(outer)] == ["D"]


def test_an_axis_that_runs_inside_alone_is_left_out_when_asked() -> None:
    sch = schedule(CHAIN)
    _, j = sch.get_loops(sch.get_block("C"))
    sch.blockize(j, preserve_unit_iters=False)
    check(sch, CHAIN)
    assert len(block(sch, "C_o").iter_vars) == 1


@pytest.mark.parametrize("depth", range(6))
def test_init_moves_to_the_new_block_and_starts_every_element_once(depth: int) -> None:
    sch = schedule(TILED)
    sch.blockize(sch.get_loops(sch.get_block("C"))[depth])
    check(sch, TILED)
    assert block(sch, "C_o").init is not None
    assert block(sch, "C").init is None


def test_tiles_that_overlap_the_edge_keep_their_predicate() -> None:
    sch = schedule(TILED)
    i1 = sch.get_loops(sch.get_block("C"))[3]
    sch.blockize(i1)
    check(sch, TILED)
    text = sch.module.script()
    assert text.count("T.where(vi_o * 5 + i1 < 12 and vj_o * 4 + j1 < 10)") == 2


def test_a_predicate_of_the_loops_above_guards_the_whole_block() -> None:
    program = one_loop("i * 3 + j", 3, 9, predicate="i < 3")
    sch = schedule(program)
    sch.blockize(sch.get_loops(sch.get_block("B"))[1])
    check(sch, program)
    assert sch.module.script().index("T.where(i < 3)") < sch.module.script().index('T.block("B")')


def test_blocks_nest_as_often_as_they_are_made() -> None:
    sch = schedule(TILED)
    loops = sch.get_loops(sch.get_block("C"))
    sch.blockize(loops[3])
    sch.blockize(loops[1])
    check(sch, TILED)
    assert [b.name for b in sch.get_child_blocks(sch.get_block("C_o_o"))] == ["C_o_init", "C_o"]


def test_regions_of_the_new_block_are_what_its_loops_touch() -> None:
    sch = schedule(MATMUL)
    sch.blockize(sch.get_loops(sch.get_block("C"))[1])
    made = block(sch, "C_o")
    text = sch.module.script()
    assert [r.buffer.name for r in made.reads] == ["A", "B"]
    assert "T.reads(A[v_i_o, 0:8], B[0:8, 0:10])" in text
    assert "T.writes(C[v_i_o, 0:10])" in text


@pytest.mark.parametrize(
    ("value", "extent", "size", "reason"),
    [
        ("i * 3 + j", 2, 12, "takes 2 values in the loops below, which does not divide"),
        ("(i + j) // 2", 4, 4, "mixes loops outside and inside"),
        ("j * 4 + i", 3, 12, "does not divide"),
    ],
)
def test_axes_that_do_not_divide_are_refused(value: str, extent: int, size: int, reason: str) -> None:
    sch = schedule(one_loop(value, extent, size))
    before = sch.module
    with pytest.raises(ScheduleError, match=reason) as refused:
        sch.blockize(sch.get_loops(sch.get_block("B"))[1])
    assert refused.value.details["primitive"] == "blockize"
    assert 'with T.block("B")' in str(refused.value)
    assert sch.module is before


def test_more_than_one_block_under_the_loop_is_refused() -> None:
    program = """
@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.block("B"):
                v = T.axis.spatial(4, i)
                A[v] = A[v] + T.float32(1)
            with T.block("C"):
                v = T.axis.spatial(4, i)
                A[v] = A[v] * T.float32(2)
"""
    sch = schedule(program)
    (i,) = sch.get_loops(sch.get_block("B"))
    with pytest.raises(ScheduleError, match="not one nest of loops around one block"):
        sch.blockize(i)


def test_the_trace_makes_the_same_block_again() -> None:
    sch = schedule(TILED)
    sch.blockize(sch.get_loops(sch.get_block("C"))[2])
    again = schedule(TILED)
    sch.trace.apply_to(again)
    assert cf.structural_equal(again.module, sch.module)
