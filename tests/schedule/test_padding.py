"""Sums of products over axes made divisible."""

from __future__ import annotations

import pytest

from crossfarm.errors import ScheduleError
from tests.schedule.layout_programs import SYMBOLIC_MATMUL, matmul, program
from tests.schedule.programs import body, check, schedule


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("padding", [(4, 4, 4), (8, 1, 1), (1, 16, 3)])
def test_a_matmul_is_padded(dtype: str, padding: tuple[int, ...]) -> None:
    text = matmul(5, 6, 7, dtype)
    sch = schedule(text)
    sch.pad_einsum(sch.get_block("C"), padding)
    check(sch, text)


def test_a_matmul_of_symbolic_shape_is_padded() -> None:
    sch = schedule(SYMBOLIC_MATMUL)
    block = sch.get_block("C")
    i = sch.get_loops(block)[0]
    sch.pad_einsum(block, [8, 16, 2])
    assert "T.grid((M + 7) // 8 * 8, (N + 15) // 16 * 16, (K + 1) // 2 * 2)" in body(sch)
    sch.split(i, [None, 8])  # the loops are still the same ones
    for sizes in ({"M": 5, "N": 6, "K": 7}, {"M": 8, "N": 32, "K": 2}):
        check(sch, SYMBOLIC_MATMUL, **sizes)


def test_what_is_divisible_is_left_alone() -> None:
    sch = schedule(matmul(8, 16, 4))
    before = sch.module
    sch.pad_einsum(sch.get_block("C"), [8, 16, 4])
    assert sch.module["main"] is before["main"]


def test_the_same_operand_with_two_indices_has_two_copies() -> None:
    text = program(
        """
for i, j, k in T.grid(5, 5, 5):
    with T.block("C"):
        v_i, v_j, v_k = T.axis.remap("SSR", [i, j, k])
        with T.init():
            C[v_i, v_j] = T.float32(0)
        C[v_i, v_j] = C[v_i, v_j] + A[v_i, v_k] * A[v_j, v_k]
""",
        "A: T.Buffer((5, 5)), C: T.Buffer((5, 5))",
    )
    sch = schedule(text)
    sch.pad_einsum(sch.get_block("C"), [4, 2, 3])
    assert "A_pad_1 = T.alloc_buffer((6, 6)" in body(sch)
    check(sch, text)


def reduction(update: str) -> str:
    return program(
        f"""
for i, k in T.grid(5, 7):
    with T.block("C"):
        v_i, v_k = T.axis.remap("SR", [i, k])
        with T.init():
            C[v_i] = T.float32(0)
        C[v_i] = {update}
""",
        "A: T.Buffer((5, 7)), B: T.Buffer((5,)), C: T.Buffer((5,))",
    )


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        ("T.max(C[v_i], A[v_i, v_k])", "does not add up"),
        ("C[v_i] + T.exp(A[v_i, v_k])", "may not be 0"),
        ("C[v_i] + A[v_i, v_k] * B[v_i]", "may not be 0"),  # B may hold an infinity
    ],
)
def test_a_padded_reduce_axis_that_would_add_something_is_refused(update: str, reason: str) -> None:
    sch = schedule(reduction(update))
    with pytest.raises(ScheduleError, match=reason):
        sch.pad_einsum(sch.get_block("C"), [1, 4])
    sch.pad_einsum(sch.get_block("C"), [4, 1])
    check(sch, reduction(update))


def test_an_operand_indexed_by_more_than_the_padded_axis_is_refused() -> None:
    text = program(
        """
for i, k in T.grid(5, 3):
    with T.block("C"):
        v_i, v_k = T.axis.remap("SR", [i, k])
        with T.init():
            C[v_i] = T.float32(0)
        C[v_i] = C[v_i] + A[v_i + v_k]
""",
        "A: T.Buffer((7,)), C: T.Buffer((5,))",
    )
    sch = schedule(text)
    with pytest.raises(ScheduleError, match="more than a padded axis itself"):
        sch.pad_einsum(sch.get_block("C"), [4, 1])


def test_a_number_for_each_axis_is_asked_for() -> None:
    sch = schedule(matmul(2, 3, 4))
    with pytest.raises(ScheduleError, match="has 3 axes"):
        sch.pad_einsum(sch.get_block("C"), [4])
