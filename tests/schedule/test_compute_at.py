"""Blocks move under loops: what runs there is just what is needed, and nothing that would change a result."""

from __future__ import annotations

import pytest

from crossfarm.errors import ScheduleError
from crossfarm.ir.stmt import BlockRealize, For
from crossfarm.ir.visitor import walk
from tests.schedule.location_programs import holds, matmul, padded_pool, pointwise, program, softmax
from tests.schedule.programs import schedule


def extents(sch: object, block: str) -> list[str]:
    """The loops around a block as text, outer to inner."""
    from crossfarm.ir.printer import print_node

    ref = sch.get_block(block)  # type: ignore[attr-defined]
    return [print_node(sch.get(loop).extent) for loop in sch.get_loops(ref)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("m", [16, 17])
def test_a_producer_computes_the_tile_that_its_consumer_reads(m: int) -> None:
    text = pointwise(6, m)
    sch = schedule(text)
    _i, j = sch.get_loops(sch.get_block("C"))
    jo, _ji = sch.split(j, [None, 8])
    sch.compute_at(sch.get_block("B"), jo)
    assert extents(sch, "B") == ["6", str(-(-m // 8)), "8"]
    holds(sch, text)


def test_a_producer_of_symbolic_shape_computes_the_row_that_is_read() -> None:
    text = softmax(7)
    sch = schedule(text)
    row = sch.get_loops(sch.get_block("y"))[0]
    for name in ("total", "e", "top"):
        sch.compute_at(sch.get_block(name), row)
    assert len(sch.get_loops(sch.get_block("e"))) == 2
    holds(sch, text, n=5)
    holds(sch, text, n=1)


def test_softmax_rows_are_fused_by_moving_consumers_too() -> None:
    text = softmax(13)
    sch = schedule(text)
    row = sch.get_loops(sch.get_block("top"))[0]
    for name in ("e", "total", "y"):
        sch.reverse_compute_at(sch.get_block(name), row)
    assert [b.name for b in sch.get_child_blocks(sch.get_block("root"))] == ["top", "e", "total", "y"]
    assert sum(isinstance(n, For) for n in walk(sch.module["main"].body)) == 5
    holds(sch, text, n=4)
    holds(sch, text, n=1)


@pytest.mark.parametrize(("n", "kernel", "stride"), [(15, 3, 2), (16, 3, 1), (11, 2, 3), (16, 5, 2)])
@pytest.mark.parametrize("tile", [1, 4])
def test_a_window_computes_the_part_of_the_padding_that_it_slides_over(
    n: int, kernel: int, stride: int, tile: int
) -> None:
    text = padded_pool(n, kernel, stride)
    sch = schedule(text)
    _c, i, _r = sch.get_loops(sch.get_block("pool"))
    io, _ii = sch.split(i, [None, tile])
    sch.compute_at(sch.get_block("pad"), io)
    assert extents(sch, "pad")[-1] == str((tile - 1) * stride + kernel)
    holds(sch, text)


@pytest.mark.parametrize(("n", "m", "tile"), [(12, 16, 8), (7, 13, 8), (5, 5, 3)])
def test_the_copy_back_of_a_tile_runs_when_the_tile_is_done(n: int, m: int, tile: int) -> None:
    text = matmul(n, m, 9)
    sch = schedule(text)
    block = sch.get_block("C")
    copy = sch.cache_write(block, 0, "local")
    i, j, k = sch.get_loops(block)
    io, ii = sch.split(i, [None, 4])
    jo, ji = sch.split(j, [None, tile])
    sch.reorder(io, jo, k, ii, ji)
    sch.reverse_compute_at(copy, jo)
    assert extents(sch, copy.name)[2:] == ["4", str(tile)]
    holds(sch, text)


def test_a_packed_copy_is_made_for_the_tile_that_reads_it() -> None:
    text = matmul(10, 21, 6)
    sch = schedule(text)
    block = sch.get_block("C")
    copy = sch.cache_read(block, 1, "global")
    i, j, k = sch.get_loops(block)
    jo, ji = sch.split(j, [None, 8])
    sch.reorder(jo, i, k, ji)
    sch.compute_at(copy, jo)
    assert extents(sch, copy.name) == ["3", "6", "8"]
    holds(sch, text)


def test_fused_loops_need_one_row_or_one_element() -> None:
    text = pointwise(6, 16)
    for factor, inner in ((1, []), (8, ["8"])):
        sch = schedule(text)
        fused = sch.fuse(*sch.get_loops(sch.get_block("C")))
        fo, _fi = sch.split(fused, [None, factor])
        sch.compute_at(sch.get_block("B"), fo)
        assert extents(sch, "B")[1:] == inner
        holds(sch, text)


def test_unit_loops_are_kept_where_asked_for() -> None:
    sch = schedule(pointwise(6, 16))
    _i, j = sch.get_loops(sch.get_block("C"))
    sch.compute_at(sch.get_block("B"), j, preserve_unit_loops=True)
    assert extents(sch, "B") == ["6", "16", "1", "1"]
    holds(sch, pointwise(6, 16))


def test_a_block_moves_again_deeper() -> None:
    text = padded_pool(16, 3, 2)
    sch = schedule(text)
    c, i, _r = sch.get_loops(sch.get_block("pool"))
    sch.compute_at(sch.get_block("pad"), c)
    sch.compute_at(sch.get_block("pad"), i)
    assert extents(sch, "pad") == ["3", "8", "3"]
    holds(sch, text)


def test_root_and_inline_are_places_too() -> None:
    text = pointwise(6, 16)
    sch = schedule(text)
    before = sch.module
    sch.compute_at(sch.get_block("B"), "root")
    assert sch.module is before
    sch.compute_at(sch.get_block("B"), "inline")
    assert [n.block.name for n in walk(sch.module["main"].body) if isinstance(n, BlockRealize)] == ["root", "C"]
    holds(sch, text)


@pytest.mark.parametrize(("index", "order"), [(-1, "PQC"), (-2, "QPC"), (0, "QPC"), (1, "PQC")])
def test_the_index_chooses_the_place_between_producers_and_consumers(index: int, order: str) -> None:
    text = program(
        'A: T.Buffer((6, 5), "float32"), C: T.Buffer((6, 5), "float32")',
        """
P = T.alloc_buffer((6, 5))
Q = T.alloc_buffer((6, 5))
for i, j in T.grid(6, 5):
    with T.block("P"):
        v_i, v_j = T.axis.remap("SS", [i, j])
        P[v_i, v_j] = A[v_i, v_j] + T.float32(1)
for i, j in T.grid(6, 5):
    with T.block("Q"):
        v_i, v_j = T.axis.remap("SS", [i, j])
        Q[v_i, v_j] = A[v_i, v_j] * T.float32(2)
for i, j in T.grid(6, 5):
    with T.block("C"):
        v_i, v_j = T.axis.remap("SS", [i, j])
        C[v_i, v_j] = P[v_i, v_j] - Q[v_i, v_j]
""",
    )
    sch = schedule(text)
    row = sch.get_loops(sch.get_block("C"))[0]
    sch.compute_at(sch.get_block("P"), row)
    assert "index 2 is not between its producers and consumers there, 0 to 1" in refused(
        sch, "compute_at", sch.get_block("Q"), row, False, 2
    )
    sch.compute_at(sch.get_block("Q"), row, index=index)
    assert "".join(b.name for b in sch.get_child_blocks(sch.get_block("root"))) == order
    holds(sch, text)


@pytest.mark.parametrize(("index", "order"), [(-1, ["P", "D", "C"]), (-2, ["P", "C", "D"]), (1, ["P", "C", "D"])])
def test_the_index_places_a_consumer_after_its_producers(index: int, order: list[str]) -> None:
    text = program(
        'A: T.Buffer((6,), "float32"), C: T.Buffer((6,), "float32"), D: T.Buffer((6,), "float32")',
        """
P = T.alloc_buffer((6,))
for i in range(6):
    with T.block("P"):
        v_i = T.axis.spatial(6, i)
        P[v_i] = A[v_i] + T.float32(1)
for i in range(6):
    with T.block("C"):
        v_i = T.axis.spatial(6, i)
        C[v_i] = P[v_i] * T.float32(2)
for i in range(6):
    with T.block("D"):
        v_i = T.axis.spatial(6, i)
        D[v_i] = P[v_i] - T.float32(3)
""",
    )
    sch = schedule(text)
    (i,) = sch.get_loops(sch.get_block("P"))
    sch.reverse_compute_at(sch.get_block("D"), i)
    assert "1 to 2" in refused(sch, "reverse_compute_at", sch.get_block("C"), i, False, 0)
    sch.reverse_compute_at(sch.get_block("C"), i, index=index)
    assert [b.name for b in sch.get_child_blocks(sch.get_block("root"))] == order
    holds(sch, text)


def refused(sch: object, method: str, *args: object) -> str:
    with pytest.raises(ScheduleError) as error:
        getattr(sch, method)(*args)
    assert "T.block" in str(error.value) or "for " in str(error.value)
    return str(error.value)


def test_an_output_does_not_move_under_a_loop_of_its_own_scope() -> None:
    sch = schedule(pointwise(6, 16))
    i, _ = sch.get_loops(sch.get_block("B"))
    assert "output" in refused(sch, "compute_at", sch.get_block("C"), i)


def test_consumers_elsewhere_are_named() -> None:
    text = softmax(7)
    sch = schedule(text)
    row = sch.get_loops(sch.get_block("total"))[0]
    assert "consumer y is not under" in refused(sch, "compute_at", sch.get_block("e"), row)


def test_elements_that_are_still_being_reduced_are_not_copied_back() -> None:
    sch = schedule(matmul(8, 8, 8))
    block = sch.get_block("C")
    copy = sch.cache_write(block, 0, "local")
    k = sch.get_loops(block)[2]
    assert "carries the reduction" in refused(sch, "reverse_compute_at", copy, k)


def test_a_consumer_of_a_window_does_not_move_to_where_half_of_it_is_made() -> None:
    sch = schedule(padded_pool(16, 3, 1))
    c, i = sch.get_loops(sch.get_block("pad"))
    assert "other iterations" in refused(sch, "reverse_compute_at", sch.get_block("pool"), i)
    sch.reverse_compute_at(sch.get_block("pool"), c)
    holds(sch, padded_pool(16, 3, 1))


def test_a_consumer_that_pads_keeps_its_border() -> None:
    text = program(
        'A: T.Buffer((8,), "float32"), C: T.Buffer((10,), "float32")',
        """
B = T.alloc_buffer((8,))
for i in range(8):
    with T.block("B"):
        v_i = T.axis.spatial(8, i)
        B[v_i] = A[v_i] + T.float32(1)
for i in range(10):
    with T.block("C"):
        v_i = T.axis.spatial(10, i)
        C[v_i] = T.if_then_else(1 <= v_i and v_i < 9, B[v_i - 1], T.float32(0))
""",
    )
    sch = schedule(text)
    (i,) = sch.get_loops(sch.get_block("B"))
    assert "would never run" in refused(sch, "reverse_compute_at", sch.get_block("C"), i)
    (i,) = sch.get_loops(sch.get_block("C"))
    sch.compute_at(sch.get_block("B"), i)
    holds(sch, text)


def test_an_element_that_changes_over_time_stays_where_it_is() -> None:
    text = program(
        'A: T.Buffer((8,), "float32"), C: T.Buffer((8,), "float32")',
        """
B = T.alloc_buffer((1,))
for i in range(8):
    with T.block("B"):
        v_i = T.axis.spatial(8, i)
        B[0] = A[v_i] + T.float32(1)
    with T.block("C"):
        v_i = T.axis.spatial(8, i)
        C[v_i] = B[0] * T.float32(2)
""",
    )
    sch = schedule(text)
    (i,) = sch.get_loops(sch.get_block("C"))
    assert "elements of their own" in refused(sch, "compute_at", sch.get_block("B"), i)
    assert "may change" in refused(sch, "reverse_compute_at", sch.get_block("C"), i)


def test_a_consumer_does_not_move_before_another_of_its_producers() -> None:
    sch = schedule(softmax(7))
    row = sch.get_loops(sch.get_block("e"))[0]
    assert "producer total runs after" in refused(sch, "reverse_compute_at", sch.get_block("y"), row)


@pytest.mark.parametrize("m", [16, 21])
def test_a_copy_in_tiles_is_packed_where_its_tile_is_used(m: int) -> None:
    text = matmul(10, m, 6)
    sch = schedule(text)
    block = sch.get_block("C")
    copy = sch.cache_read(block, 1, "global")
    sch.transform_layout(block, ("read", 1), lambda k, j: [j // 8, k, j % 8], pad_value=0.0 if m % 8 else None)
    i, j, k = sch.get_loops(block)
    jo, ji = sch.split(j, [None, 8])
    sch.reorder(jo, i, k, ji)
    sch.compute_at(copy, jo)
    assert extents(sch, copy.name)[1:] == ["6", "8"]
    holds(sch, text)


def test_a_tile_goes_back_after_its_start_was_taken_apart() -> None:
    text = matmul(11, 13, 9)
    sch = schedule(text)
    block = sch.get_block("C")
    copy = sch.cache_write(block, 0, "local")
    i, j, k = sch.get_loops(block)
    io, ii = sch.split(i, [None, 4])
    jo, ji = sch.split(j, [None, 8])
    sch.reorder(io, jo, k, ii, ji)
    sch.vectorize(ji)
    sch.decompose_reduction(block, k)
    sch.reverse_compute_at(copy, jo)
    sch.vectorize(sch.get_loops(copy)[-1])
    sch.parallel(io)
    holds(sch, text)


@pytest.mark.parametrize("factor", [3, 8])
def test_fused_loops_split_unevenly_still_say_what_runs(factor: int) -> None:
    text = pointwise(5, 13)
    sch = schedule(text)
    sch.split(sch.fuse(*sch.get_loops(sch.get_block("B"))), [None, factor])
    row = sch.get_loops(sch.get_block("C"))[0]
    sch.compute_at(sch.get_block("B"), row)
    assert extents(sch, "B") == ["5", "13"]
    holds(sch, text)
    sch = schedule(text)
    sch.split(sch.fuse(*sch.get_loops(sch.get_block("B"))), [None, factor])
    sch.compute_inline(sch.get_block("B"))
    holds(sch, text)


def test_tiles_may_be_larger_than_what_they_tile() -> None:
    text = matmul(3, 5, 2)
    sch = schedule(text)
    block = sch.get_block("C")
    copy = sch.cache_write(block, 0, "local")
    i, j, k = sch.get_loops(block)
    io, ii = sch.split(i, [None, 4])
    jo, ji = sch.split(j, [None, 8])
    ko, ki = sch.split(k, [None, 4])
    sch.reorder(io, jo, ko, ki, ii, ji)
    sch.reverse_compute_at(copy, jo)
    holds(sch, text)


@pytest.mark.parametrize(("rows", "columns", "lanes"), [(17, 64, 32), (8, 64, 16), (3, 12, 4)])
def test_instances_of_dependent_axes_are_no_box_of_them_and_stay_where_they_are(
    rows: int, columns: int, lanes: int
) -> None:
    # rfactor over part of two fused axes leaves (f // 2, f): every value of each, and not every pair
    text = program(
        f'X: T.Buffer(({rows}, {columns}), "float32"), S: T.Buffer((1,), "float32")',
        f"""
for u, i, j in T.grid(1, {rows}, {columns}):
    with T.block("s"):
        vi, vj = T.axis.remap("RR", [i, j])
        with T.init():
            S[0] = T.float32(0)
        S[0] = S[0] + X[vi, vj]
""",
    )
    sch = schedule(text)
    _unit, i, j = sch.get_loops(sch.get_block("s"))
    _steps, lane = sch.split(sch.fuse(i, j), [None, lanes])
    partial = sch.rfactor(lane, 1)
    with pytest.raises(ScheduleError, match="its loops are not known to give every value of axis v_i_j_fused_0"):
        sch.compute_at(partial, sch.get_loops(sch.get_block("s"))[0], preserve_unit_loops=True)
    holds(sch, text)
