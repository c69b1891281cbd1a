"""Index maps, layouts of temporaries, and blocks that run in a layout's order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfarm.errors import InvalidModule, ScheduleError
from crossfarm.ir import ops
from crossfarm.ir.printer import print_node
from crossfarm.ir.schedule.index_map import IndexMap
from crossfarm.ir.schedule.schedule import Schedule
from tests.compiler.native import Native
from tests.schedule.layout_programs import CONV, SYMBOLIC_MATMUL, matmul
from tests.schedule.programs import CHAIN, MATMUL, arguments, body, check, schedule


def pack(sch: Schedule) -> None:
    """Operands of a matmul as panels: A[M, K] → [M/8, K, 8], B[K, N] → [N/16, K, 16], zeros where they overhang."""
    block = sch.get_block("C")
    a, b = sch.cache_read(block, 0, "global"), sch.cache_read(block, 1, "global")
    sch.transform_layout(a, ("write", 0), lambda m, k: [m // 8, k, m % 8], pad_value=0)
    sch.transform_layout(b, ("write", 0), lambda k, n: [n // 16, k, n % 16], pad_value=0)


@pytest.mark.parametrize(("m", "n", "k"), [(16, 32, 4), (13, 17, 5), (1, 1, 1), (7, 33, 3)])
def test_a_matmul_of_any_shape_on_packed_operands(m: int, n: int, k: int) -> None:
    text = matmul(m, n, k)
    sch = schedule(text)
    pack(sch)
    check(sch, text)


@pytest.mark.parametrize(("m", "n", "k"), [(13, 17, 5), (8, 16, 1), (1, 40, 9)])
def test_a_matmul_of_symbolic_shapes_on_packed_operands(m: int, n: int, k: int) -> None:
    sch = schedule(SYMBOLIC_MATMUL)
    pack(sch)
    assert "A_global = T.alloc_buffer(((M + 7) // 8, K, 8)" in body(sch)
    check(sch, SYMBOLIC_MATMUL, M=m, N=n, K=k)


@pytest.mark.parametrize("text", [matmul(13, 17, 5), SYMBOLIC_MATMUL], ids=["odd", "symbolic"])
def test_packed_operands_and_padded_tiles_compile_and_run(text: str) -> None:
    sch = schedule(text)
    block = sch.get_block("C")
    sch.pad_einsum(block, [8, 16, 1])
    pads = sch.get_producers(block)
    sch.transform_layout(pads[0], ("write", 0), lambda m, k: [m // 8, k, m % 8], pad_value=0)
    sch.transform_layout(pads[1], ("write", 0), lambda k, n: [n // 16, k, n % 16], pad_value=0)
    sch.transform_layout(block, ("write", 0), lambda m, n: [m // 8, n // 16, m % 8, n % 16])
    sch.transform_block_layout(block, lambda i, j, k: [i // 8, j // 16, k, i % 8, j % 16])
    assert "T.reads(A_pad[v0, v2, v3], B_pad[v1, v2, v4])" in body(sch)
    assert "T.where" not in body(sch)
    sizes = {"M": 13, "N": 17, "K": 5}
    check(sch, text, **sizes)
    a, b, c = arguments(sch.module, "main", sizes)
    Native(sch.module)("main", a, b, c)
    np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-4)


def test_the_copy_writes_the_padding() -> None:
    sch = schedule(matmul(13, 16, 3))
    pack(sch)
    assert "T.if_then_else(v0 * 8 + v2 < 13, A[v0 * 8 + v2, v1], T.float32(0.0))" in body(sch)
    assert "B_global[v0, v1, v2] = T.if" not in body(sch)  # 16 columns fill their panel


def test_before_a_producer_that_is_no_copy_a_block_writes_the_padding() -> None:
    sch = schedule(matmul(5, 6, 3))
    block = sch.get_block("C")
    sch.cache_write(block, 0, "global")
    sch.transform_layout(block, ("write", 0), lambda i, j: [i // 4, j, i % 4], pad_value=9)
    assert 'T.block("C_global_pad")' in body(sch)
    check(sch, matmul(5, 6, 3))


def test_without_a_pad_value_the_producer_keeps_its_loops() -> None:
    sch = schedule(CHAIN)
    sch.transform_layout(sch.get_block("B"), ("write", 0), lambda i, j: [j, i])
    assert "B[v_j, v_i] = A[v_i, v_j] * T.float32(2.0)" in body(sch)
    check(sch, CHAIN)


def test_a_convolution_as_a_matmul_of_panels() -> None:
    sch = schedule(CONV)
    block = sch.get_block("C")
    image, weight = sch.reindex(block, ("read", 0)), sch.reindex(block, ("read", 1))
    result = sch.reindex(block, ("write", 0))
    sch.transform_layout(image, ("write", 0), lambda n, h, w, r, s, c: [(n * 5 + h) * 5 + w, (r * 3 + s) * 3 + c], 0)
    sch.transform_layout(weight, ("write", 0), lambda o, r, s, c: [(r * 3 + s) * 3 + c, o], 0)
    sch.transform_layout(result, ("read", 0), lambda n, h, w, o: [(n * 5 + h) * 5 + w, o])
    sch.transform_block_layout(block, lambda n, h, w, o, r, s, c: [(n * 5 + h) * 5 + w, o, (r * 3 + s) * 3 + c])
    assert "C_reindex[v0, v1] = C_reindex[v0, v1] + P_reindex[v0, v2] * W_reindex[v2, v1]" in body(sch)
    sch.pad_einsum(block, [8, 4, 1])
    sch.transform_layout(sch.get_block("P_reindex_pad"), ("write", 0), lambda m, k: [m // 8, k, m % 8], 0)
    sch.transform_block_layout(block, lambda m, n, k: [m // 8, n // 4, k, m % 8, n % 4])
    check(sch, CONV)


def test_a_block_order_that_leaves_gaps_has_a_predicate() -> None:
    sch = schedule(matmul(5, 6, 3))
    sch.transform_block_layout(sch.get_block("C"), lambda i, j, k: [j // 4, i, k, j % 4])
    assert "T.where(ax0 * 4 + ax3 < 6)" in body(sch)
    check(sch, matmul(5, 6, 3))


def test_the_layout_of_a_parameter_is_refused_with_what_to_do() -> None:
    sch = schedule(MATMUL)
    with pytest.raises(ScheduleError, match="A is a parameter") as failure:
        sch.transform_layout(sch.get_block("C"), ("read", 0), lambda i, j: [j, i])
    assert "cache_read" in failure.value.hint


@pytest.mark.parametrize(
    ("index_map", "reason"),
    [
        (lambda i, j: [i], "to one place"),
        (lambda i, j: [i + j], "to one place"),
        (lambda i, j: [i // 2, j], "to one place"),
        (lambda i, j: [i - 1, j], "negative"),
        (lambda i: [i], "for 1 dimensions, not 2"),
    ],
)
def test_maps_that_lose_elements_are_refused(index_map: Callable[..., Any], reason: str) -> None:
    sch = schedule(CHAIN)
    with pytest.raises((ScheduleError, InvalidModule), match=reason):
        sch.transform_layout(sch.get_block("B"), ("write", 0), index_map)


def test_a_block_order_that_mixes_spatial_and_reduce_axes_is_refused() -> None:
    sch = schedule(MATMUL)
    with pytest.raises(ScheduleError, match="mixes reduce and spatial axes"):
        sch.transform_block_layout(sch.get_block("C"), lambda i, j, k: [i, j * 8 + k])


def test_marked_loops_are_not_replaced() -> None:
    sch = schedule(MATMUL)
    block = sch.get_block("C")
    sch.parallel(sch.get_loops(block)[0])
    with pytest.raises(ScheduleError, match="loop i is parallel"):
        sch.transform_block_layout(block, lambda i, j, k: [j, i, k])


MAPS: list[Callable[..., Any]] = [
    lambda i, j, k: [k, i, j],
    lambda i, j, k: [i // 4, j, k, i % 4],
    lambda i, j, k: [i // 8, j, k, i % 8 // 2, i % 2],
    lambda i, j, k: [i, (j * 8 + k) // 4, (j * 8 + k) % 4],
    lambda i, j, k: [i * 16 + j, k],
    lambda i, j, k: [j // 3, i // 5, k, i % 5 * 3 + j % 3],
    lambda i, j, k: [i + 2, j, k],
]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(MAPS), st.integers(1, 13), st.integers(1, 9))
def test_the_inverse_of_a_map_leads_back_and_holds_exactly_where_it_says(
    function: Callable[..., Any], rows: int, columns: int
) -> None:
    shape = (rows, columns, 8)
    index_map = IndexMap.of(function, 3)
    extents = [ops.const(e) for e in shape]
    new = [int(print_node(e)) for e in index_map.shape(extents)]
    inverse = index_map.inverse(extents)
    images = {tuple(function(*at)): at for at in np.ndindex(*shape)}
    assert len(images) == np.prod(shape)
    for at in np.ndindex(*new):
        before, valid = inverse.at([ops.const(i) for i in at])
        holds = valid is None or print_node(_folded(valid)) in ("True", "T.bool(True)")
        assert holds == (at in images)
        if holds:
            assert tuple(int(print_node(e)) for e in before) == images[at]


def _folded(condition: Any) -> Any:
    from crossfarm.ir.arith import Analyzer
    from crossfarm.ir.schedule.index_arith import fold

    return fold(condition, Analyzer())
