"""Stages disappear into one another, with the same values in the same places."""

from __future__ import annotations

import pytest

from crossfarm.errors import ScheduleError
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.visitor import walk
from tests.schedule.location_programs import holds, matmul, padded_pool, pointwise, program
from tests.schedule.programs import schedule


def buffers(sch: Schedule) -> set[str]:
    return {n.name for n in walk(sch.module["main"].body) if isinstance(n, Buffer)}


def refused(sch: Schedule, method: str, block: str) -> str:
    with pytest.raises(ScheduleError) as error:
        getattr(sch, method)(sch.get_block(block))
    return str(error.value)


def two_stages(first: str, second: str, n: int = 12, m: int = 8, shape: str = "(12, 8)") -> str:
    """``first`` writes B from A over n × m, ``second`` writes C from B over n × m."""
    return program(
        f'A: T.Buffer((12, 8), "float32"), C: T.Buffer(({n}, {m}), "float32")',
        f"""
B = T.alloc_buffer({shape})
for i, j in T.grid(12, 8):
    with T.block("B"):
        v_i, v_j = T.axis.remap("SS", [i, j])
        {first}
for i, j in T.grid({n}, {m}):
    with T.block("C"):
        v_i, v_j = T.axis.remap("SS", [i, j])
        {second}
""",
    )


@pytest.mark.parametrize(
    ("first", "second", "n", "m", "shape"),
    [
        ("B[v_j, v_i] = A[v_i, v_j] + T.float32(1)", "C[v_i, v_j] = B[v_j, v_i]", 12, 8, "(8, 12)"),
        ("B[v_i * 8 + v_j] = A[v_i, v_j]", "C[v_i, v_j] = B[v_i * 8 + v_j] * T.float32(2)", 12, 8, "(96,)"),
        ("B[v_j // 4, v_i, v_j % 4] = A[v_i, v_j]", "C[v_i, v_j] = B[v_j // 4, v_i, v_j % 4]", 12, 8, "(2, 12, 4)"),
        ("B[v_i, v_j + 2] = A[v_i, v_j]", "C[v_i, v_j] = B[v_i, v_j + 2]", 12, 8, "(12, 10)"),
        ("B[v_i, v_j] = A[v_i, v_j]", "C[v_i, v_j] = B[v_i // 2, 7 - v_j] + B[v_i // 2 + 6, v_j]", 12, 8, "(12, 8)"),
    ],
)
def test_a_producer_with_any_invertible_index_is_inlined(first: str, second: str, n: int, m: int, shape: str) -> None:
    text = two_stages(first, second, n, m, shape)
    sch = schedule(text)
    sch.compute_inline(sch.get_block("B"))
    assert "B" not in buffers(sch)
    holds(sch, text)


def test_padding_goes_into_the_reduction_that_reads_it() -> None:
    text = padded_pool(15, 3, 2)
    sch = schedule(text)
    sch.compute_inline(sch.get_block("pad"))
    assert "pad" not in buffers(sch)
    holds(sch, text)


def test_a_producer_goes_into_several_consumers_and_symbolic_shapes() -> None:
    text = program(
        "var_A: T.handle, var_C: T.handle, var_D: T.handle",
        """
n = T.int32()
A = T.match_buffer(var_A, (n,))
C = T.match_buffer(var_C, (n,))
D = T.match_buffer(var_D, (n,))
B = T.alloc_buffer((n,))
for i in range(n):
    with T.block("B"):
        v_i = T.axis.spatial(n, i)
        B[v_i] = A[v_i] + T.float32(1)
for i in range(n):
    with T.block("C"):
        v_i = T.axis.spatial(n, i)
        C[v_i] = B[v_i] * B[v_i]
for i in range(n):
    with T.block("D"):
        v_i = T.axis.spatial(n, i)
        D[v_i] = B[n - 1 - v_i] + C[v_i]
""",
    )
    sch = schedule(text)
    for name in ("C", "D"):
        (loop,) = sch.get_loops(sch.get_block(name))
        sch.split(loop, [None, 4])
    sch.compute_inline(sch.get_block("B"))
    assert "B" not in buffers(sch)
    holds(sch, text, n=7)
    holds(sch, text, n=1)


def test_an_inlined_producer_may_have_been_split_unevenly() -> None:
    text = pointwise(5, 13)
    sch = schedule(text)
    sch.split(sch.get_loops(sch.get_block("B"))[1], [None, 4])
    sch.compute_inline(sch.get_block("B"))
    holds(sch, text)


def test_outputs_and_reductions_are_not_inlined() -> None:
    assert "output" in refused(schedule(pointwise(4, 4)), "compute_inline", "C")
    sch = schedule(matmul(4, 4, 4))
    sch.cache_write(sch.get_block("C"), 0, "local")
    assert "not complete" in refused(sch, "compute_inline", "C")


def test_a_consumer_that_overwrites_the_input_keeps_the_producer() -> None:
    text = program(
        'A: T.Buffer((8,), "float32")',
        """
B = T.alloc_buffer((8,))
for i in range(8):
    with T.block("B"):
        v_i = T.axis.spatial(8, i)
        B[v_i] = A[v_i] + T.float32(1)
for i in range(8):
    with T.block("A"):
        v_i = T.axis.spatial(8, i)
        A[v_i] = B[7 - v_i]
""",
    )
    assert "writes A after" in refused(schedule(text), "compute_inline", "B")


def test_elements_that_were_never_stored_are_not_computed() -> None:
    text = two_stages("B[v_i, v_j + 1] = A[v_i, v_j]", "C[v_i, v_j] = B[v_i, v_j]", 12, 9, "(12, 9)")
    assert "does not store" in refused(schedule(text), "compute_inline", "B")


@pytest.mark.parametrize(
    ("first", "second", "shape"),
    [
        ("B[v_i, v_j] = A[v_i, v_j] + T.float32(1)", "C[v_i, v_j] = B[v_i, v_j] * B[v_i, v_j]", "(12, 8)"),
        ("B[v_j, v_i] = A[v_i, v_j]", "C[v_i, v_j] = B[v_j, v_i] + T.float32(1)", "(8, 12)"),
        ("B[v_i * 8 + v_j] = A[v_i, v_j]", "C[v_i, v_j] = B[v_i * 8 + v_j] * T.float32(2)", "(96,)"),
    ],
)
def test_a_consumer_goes_into_its_producer(first: str, second: str, shape: str) -> None:
    text = two_stages(first, second, shape=shape)
    sch = schedule(text)
    sch.reverse_compute_inline(sch.get_block("C"))
    assert "B" not in buffers(sch)
    holds(sch, text)


def test_a_consumer_of_a_part_guards_its_store() -> None:
    text = two_stages("B[v_i, v_j] = A[v_i, v_j]", "C[v_i, v_j] = B[v_i + 2, v_j] * T.float32(3)", 9, 5)
    sch = schedule(text)
    sch.reverse_compute_inline(sch.get_block("C"))
    holds(sch, text)


def test_a_consumer_of_a_reduction_or_of_two_elements_stays() -> None:
    sch = schedule(matmul(4, 4, 4))
    sch.cache_write(sch.get_block("C"), 0, "local")
    assert "is a reduction" in refused(sch, "reverse_compute_inline", sch.get_consumers(sch.get_block("C"))[0].name)
    text = two_stages("B[v_i, v_j] = A[v_i, v_j]", "C[v_i, v_j] = B[v_i, v_j] + B[v_i, 7 - v_j]")
    assert "2 elements" in refused(schedule(text), "reverse_compute_inline", "C")
    text = two_stages("B[v_i, v_j] = A[v_i, v_j]", "C[v_i, v_j] = B[v_i, 0]")
    assert "cannot be told" in refused(schedule(text), "reverse_compute_inline", "C")
