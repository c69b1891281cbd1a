"""What each primitive refuses, with the exact reason and the block printed; and traces that no longer fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crossfarm.errors import ScheduleError, TraceError
from crossfarm.ir.schedule.dot_products import dot_name
from crossfarm.ir.schedule.intrinsics import names
from crossfarm.ir.schedule.schedule import BlockRef, LoopRef, Schedule
from tests.schedule.location_programs import padded_pool, program, row_sum, softmax
from tests.schedule.programs import CHAIN, MATMUL, SYMBOLIC, schedule
from tests.schedule.test_marks import PREFIX_SUM, SCATTER, TEMPORARY
from tests.schedule.test_tensorize import tiled

TRIANGLE = program(
    'A: T.Buffer((8, 8), "float32"), B: T.Buffer((8, 8), "float32")',
    """
for i in range(8):
    for j in range(i + 1):
        with T.block("B"):
            v_i, v_j = T.axis.remap("SS", [i, j])
            B[v_i, v_j] = A[v_i, v_j] + T.float32(1)
""",
)

SCAN = program(
    'A: T.Buffer((9, 8), "float32"), C: T.Buffer((9, 8), "float32")',
    """
B = T.alloc_buffer((9, 8))
for i, j in T.grid(8, 8):
    with T.block("B"):
        v_i, v_j = T.axis.remap("SS", [i, j])
        B[v_i + 1, v_j] = A[v_i, v_j] + B[v_i, 7 - v_j]
for i, j in T.grid(9, 8):
    with T.block("C"):
        v_i, v_j = T.axis.remap("SS", [i, j])
        C[v_i, v_j] = B[v_i, v_j]
""",
)

#: A reduction whose steps do not commute: the last value.
LAST = program(
    'A: T.Buffer((4, 8), "float32"), C: T.Buffer((4,), "float32")',
    """
for i, k in T.grid(4, 8):
    with T.block("C"):
        v_i, v_k = T.axis.remap("SR", [i, k])
        with T.init():
            C[v_i] = T.float32(0)
        C[v_i] = C[v_i] * T.float32(0.5) + A[v_i, v_k]
""",
)


#: MATMUL's block C with a loop less.
ROW_SUM = row_sum(12, 8).replace("S[", "C[").replace('block("S")', 'block("C")').replace("S:", "C:")


def block(sch: Schedule, name: str) -> BlockRef:
    return sch.get_block(name)


def loop(sch: Schedule, name: str, position: int) -> LoopRef:
    return sch.get_loops(block(sch, name))[position]


def marked(sch: Schedule, kind: str, name: str, position: int) -> LoopRef:
    """A loop that runs as ``kind`` says already."""
    of = loop(sch, name, position)
    getattr(sch, kind)(of)
    return of


def noted(sch: Schedule, name: str, position: int) -> LoopRef:
    """A loop with an annotation."""
    of = loop(sch, name, position)
    sch.annotate(of, "note", 1)
    return of


def replaced(sch: Schedule, name: str, position: int) -> LoopRef:
    """A loop that is gone."""
    of = loop(sch, name, position)
    sch.split(of, [None, 2])
    return of


def bound(sch: Schedule, name: str, position: int, axis: str) -> str:
    """A thread axis that a loop has already."""
    sch.bind(loop(sch, name, position), axis)
    return axis


def inlined(sch: Schedule, name: str) -> BlockRef:
    """A block that is gone."""
    gone = block(sch, name)
    sch.compute_inline(gone)
    return gone


def parallel_block(sch: Schedule, name: str) -> BlockRef:
    sch.parallel(loop(sch, name, 0))
    return block(sch, name)


def written_back(sch: Schedule, name: str) -> BlockRef:
    """The block that copies what a block computes to where it belongs."""
    return sch.cache_write(block(sch, name), 0, "global")


def inner_reduction(sch: Schedule) -> tuple[BlockRef, LoopRef]:
    """The block C, whose reduction runs outside of the loop."""
    i, j, k = sch.get_loops(block(sch, "C"))
    sch.reorder(k, i, j)
    return block(sch, "C"), i


def beside(sch: Schedule) -> LoopRef:
    """A loop around two blocks."""
    of = loop(sch, "D", 0)
    sch.compute_at(block(sch, "C"), of)
    return of


def part_of_rows(sch: Schedule) -> LoopRef:
    """A loop over 7 of all elements, in rows of 10."""
    i, j, k = sch.get_loops(block(sch, "C"))
    sch.reorder(k, i, j)
    return sch.split(sch.fuse(i, j), [None, 7])[1]


#: primitive, program, the call that it refuses on a schedule of that, the reason, the block that is printed
Call = tuple[Any, ...]
# fmt: off
REFUSED: list[tuple[str, str, Callable[[Schedule], Call], str, str]] = [
    # finding
    ("get_block", CHAIN, lambda s: (s.get_block, "X"),
     "there is no block 'X'; there are: root, B, C, D", ""),
    ("get_loops", CHAIN, lambda s: (s.get_loops, inlined(s, "C")),
     "there is no block 'C'; there are: root, B, D", ""),
    ("get_child_blocks", CHAIN, lambda s: (s.get_child_blocks, inlined(s, "C")),
     "there is no block 'C'; there are: root, B, D", ""),
    ("get_producers", CHAIN, lambda s: (s.get_producers, block(s, "root")),
     "the root block has no scope around it", "root"),
    ("get_consumers", CHAIN, lambda s: (s.get_consumers, block(s, "root")),
     "the root block has no scope around it", "root"),
    ("get_output_blocks", CHAIN, lambda s: (s.get_output_blocks, inlined(s, "C")),
     "there is no block 'C'; there are: root, B, D", ""),
    # loops
    ("split", MATMUL, lambda s: (s.split, loop(s, "C", 0), []),
     "there are no factors", "C"),
    ("split", MATMUL, lambda s: (s.split, loop(s, "C", 0), [None, None]),
     "more than one factor is None", "C"),
    ("split", MATMUL, lambda s: (s.split, loop(s, "C", 0), [2, 5]),
     "the factors do not cover the extent of loop i", "C"),
    ("split", MATMUL, lambda s: (s.split, loop(s, "C", 0), [None, -4]),
     "a factor of -4 for loop i: factors are positive", "C"),
    ("split", MATMUL, lambda s: (s.split, marked(s, "parallel", "C", 0), [None, 4]),
     "loop i is parallel; only a serial loop can be replaced", "C"),
    ("split", MATMUL, lambda s: (s.split, noted(s, "C", 0), [None, 4]),
     "loop i has the annotation 'note'", "C"),
    ("split", MATMUL, lambda s: (s.split, replaced(s, "C", 0), [None, 4]),
     "the loop over i is no longer in the function", ""),
    ("fuse", MATMUL, lambda s: (s.fuse,),
     "there are no loops to fuse", ""),
    ("fuse", MATMUL, lambda s: (s.fuse, loop(s, "C", 1), loop(s, "C", 0)),
     "loop i is not the one thing directly inside j", "C"),
    ("fuse", MATMUL, lambda s: (s.fuse, loop(s, "C", 0), loop(s, "C", 2)),
     "loop k is not the one thing directly inside i", "C"),
    ("fuse", MATMUL, lambda s: (s.fuse, loop(s, "C", 0), marked(s, "unroll", "C", 1)),
     "loop j is unrolled; only a serial loop can be replaced", "C"),
    ("reorder", MATMUL, lambda s: (s.reorder, loop(s, "C", 0), loop(s, "C", 0)),
     "a loop is named twice", ""),
    ("reorder", CHAIN, lambda s: (s.reorder, loop(s, "C", 0), loop(s, "B", 1)),
     "between loops i and j is more than loops", "C"),
    ("reorder", TRIANGLE, lambda s: (s.reorder, loop(s, "B", 1), loop(s, "B", 0)),
     "the range of loop j depends on loop i", "B"),
    ("reorder", SCAN, lambda s: (s.reorder, loop(s, "B", 1), loop(s, "B", 0)),
     "iterations of loop j must keep their order: several may touch one element of B in block B", "B"),
    ("add_unit_loop", MATMUL, lambda s: (s.add_unit_loop, block(s, "root")),
     "nothing can be around the root block", "root"),
    # how loops run
    ("parallel", MATMUL, lambda s: (s.parallel, loop(s, "C", 2)),
     "iterations of loop k are not independent: it drives the reduce axis v_k of block C", "C"),
    ("parallel", MATMUL, lambda s: (s.parallel, marked(s, "unroll", "C", 0)),
     "loop i is unrolled already", "C"),
    ("parallel", SCATTER, lambda s: (s.parallel, loop(s, "C", 0)),
     "iterations of loop i are not independent: several may touch one element of C in block C", "C"),
    ("parallel", PREFIX_SUM, lambda s: (s.parallel, loop(s, "C", 0)),
     "iterations of loop i are not independent: it drives the reduce axis v_i of block B", "B"),
    ("vectorize", SYMBOLIC, lambda s: (s.vectorize, loop(s, "B", 1)),
     "loop j has no constant extent", "B"),
    ("vectorize", MATMUL, lambda s: (s.vectorize, loop(s, "C", 2)),
     "iterations of loop k are not independent: it drives the reduce axis v_k of block C", "C"),
    ("unroll", MATMUL, lambda s: (s.unroll, marked(s, "vectorize", "C", 1)),
     "loop j is vectorized already", "C"),
    ("bind", MATMUL, lambda s: (s.bind, loop(s, "C", 0), "threadIdx.w"),
     "there is no thread axis 'threadIdx.w'", "C"),
    ("bind", MATMUL, lambda s: (s.bind, loop(s, "C", 2), "blockIdx.x"),
     "iterations of loop k are not independent: it drives the reduce axis v_k of block C", "C"),
    ("bind", MATMUL, lambda s: (s.bind, loop(s, "C", 1), bound(s, "C", 0, "threadIdx.x")),
     "loop i in the same nest is bound to threadIdx.x, and they are not threads of one group", "C"),
    ("annotate", MATMUL, lambda s: (s.annotate, block(s, "C"), "note", object()),
     "an attribute holds a object", ""),
    ("unannotate", MATMUL, lambda s: (s.unannotate, block(s, "C"), "note"),
     "there is no annotation 'note'; there are: none", "C"),
    # buffers
    ("set_scope", CHAIN, lambda s: (s.set_scope, block(s, "B"), 0, "texture"),
     "there is no memory scope 'texture'", "B"),
    ("set_scope", CHAIN, lambda s: (s.set_scope, block(s, "D"), 0, "local"),
     "D is not allocated here: its place and layout are the caller's", "D"),
    ("set_scope", CHAIN, lambda s: (s.set_scope, block(s, "B"), 1, "local"),
     "block B has 1 written buffers, not one of index 1", "B"),
    ("storage_align", CHAIN, lambda s: (s.storage_align, block(s, "B"), 0, 1, 16, 0),
     "axis 1 of B has no stride to choose", "B"),
    ("storage_align", CHAIN, lambda s: (s.storage_align, block(s, "B"), 0, 0, 16, 16),
     "a stride cannot be 16 modulo 16", "B"),
    ("storage_align", CHAIN, lambda s: (s.storage_align, block(s, "D"), 0, 0, 16, 0),
     "D is not allocated here: its place and layout are the caller's", "D"),
    ("cache_read", MATMUL, lambda s: (s.cache_read, block(s, "C"), 2, "local"),
     "block C has no read 2; it has 0: A, 1: B", "C"),
    ("cache_read", MATMUL, lambda s: (s.cache_read, block(s, "C"), 0, "texture"),
     "there is no memory scope 'texture'; there are global, shared, local", ""),
    ("cache_read", SCAN, lambda s: (s.cache_read, block(s, "B"), 1, "local"),
     "block B writes B too: it would read its own results late", "B"),
    ("cache_read", CHAIN, lambda s: (s.cache_read, block(s, "C"), 0, "local", [block(s, "B")]),
     "block B does not read B", "B"),
    ("cache_read", CHAIN, lambda s: (s.cache_read, block(s, "root"), 0, "local"),
     "block root has no read 0; it has none", "root"),
    ("cache_write", MATMUL, lambda s: (s.cache_write, block(s, "C"), 1, "local"),
     "block C has no write 1; it has 0: C", "C"),
    ("cache_write", SCATTER, lambda s: (s.cache_write, block(s, "C"), 0, "local"),
     "block C may not write all of C that would be copied: a value is not made of loop variables, sums, "
     "multiples, quotients and remainders", "C"),
    ("cache_write", SCAN, lambda s: (s.cache_write, block(s, "B"), 0, "local"),
     "block B reads what B held before it", "B"),
    ("cache_write", CHAIN, lambda s: (s.cache_write, block(s, "B"), 0, "local", [block(s, "B")]),
     "block B does not read B", "B"),
    ("reindex", MATMUL, lambda s: (s.reindex, block(s, "C"), ("both", 0)),
     "a buffer is ('read', i) or ('write', i), not 'both'", ""),
    ("reindex", MATMUL, lambda s: (s.reindex, block(s, "C"), ("read", 2)),
     "block C has no read 2; it has 0: A, 1: B", "C"),
    ("reindex", TEMPORARY, lambda s: (s.reindex, block(s, "C"), ("read", 0)),
     "block C accesses B at 2 different indices, not one", "C"),
    ("reindex", TEMPORARY, lambda s: (s.reindex, block(s, "B"), ("write", 0)),
     "a spatial axis of block B does not choose the element of B", "B"),
    ("reindex", SCATTER, lambda s: (s.reindex, block(s, "C"), ("write", 0)),
     "an index in block C is not made of its axes alone", "C"),
    ("transform_layout", MATMUL, lambda s: (s.transform_layout, block(s, "C"), ("read", 0), lambda i, k: [k, i]),
     "A is a parameter: its layout is the caller's", "C"),
    ("transform_layout", CHAIN, lambda s: (s.transform_layout, block(s, "B"), ("write", 0), lambda i, j: [i]),
     "lambda i, j: [i] may take two elements of B to one place: loop j is not used", "B"),
    ("transform_layout", CHAIN, lambda s: (s.transform_layout, block(s, "B"), ("write", 0), lambda i: [i]),
     "the index map is for 1 dimensions, not 2", "B"),
    ("transform_layout", CHAIN, lambda s: (s.transform_layout, block(s, "B"), ("both", 0), lambda i, j: [j, i]),
     "a buffer is ('read', i) or ('write', i), not 'both'", ""),
    ("transform_block_layout", MATMUL,
     lambda s: (s.transform_block_layout, block(s, "C"), lambda i, j, k: [i, j * 8 + k]),
     "lambda i, j, k: [i, j * 8 + k] mixes reduce and spatial axes", "C"),
    ("transform_block_layout", MATMUL, lambda s: (s.transform_block_layout, block(s, "C"), lambda i, j, k: [i, k]),
     "lambda i, j, k: [i, k] has no inverse on this shape: loop j is not used", "C"),
    ("transform_block_layout", MATMUL,
     lambda s: (s.transform_block_layout, parallel_block(s, "C"), lambda i, j, k: [j, i, k]),
     "its loops are replaced, but loop i is parallel", "C"),
    ("pad_einsum", MATMUL, lambda s: (s.pad_einsum, block(s, "C"), [16, 16]),
     "block C has 3 axes; give a number above 0 for each", "C"),
    ("pad_einsum", softmax(7), lambda s: (s.pad_einsum, block(s, "top"), [1, 8]),
     "reduce axis v_k is padded, but the block does not add up", "top"),
    ("pad_einsum", SCATTER, lambda s: (s.pad_einsum, block(s, "C"), [16]),
     "block C stores at indices that are not axes themselves", "C"),
    # places
    ("compute_at", CHAIN, lambda s: (s.compute_at, block(s, "D"), loop(s, "B", 0)),
     "block D: writes an output of its scope, which other readers need whole", "D"),
    ("compute_at", CHAIN, lambda s: (s.compute_at, block(s, "B"), loop(s, "C", 0)),
     "block B: its consumer D is not under the loop i", "B"),
    ("compute_at", CHAIN, lambda s: (s.compute_at, block(s, "C"), "elsewhere"),
     "'elsewhere' is no place for a block", ""),
    ("compute_at", CHAIN, lambda s: (s.compute_at, block(s, "C"), loop(s, "D", 0), False, 1),
     "block C: index 1 is not between its producers and consumers there, 0 to 0", "C"),
    ("compute_at", TEMPORARY, lambda s: (s.compute_at, block(s, "B"), loop(s, "C", 1)),
     "block B: its instances are not known to write elements of their own: axis v_i is not used", "B"),
    ("compute_at", SCAN, lambda s: (s.compute_at, block(s, "B"), loop(s, "C", 0)),
     "block B is neither complete (it reads B, which it writes) nor a reduction block (it has no init)", "B"),
    ("reverse_compute_at", CHAIN, lambda s: (s.reverse_compute_at, block(s, "D"), loop(s, "B", 0)),
     "block D: its producer C runs after the loop i", "D"),
    ("reverse_compute_at", CHAIN, lambda s: (s.reverse_compute_at, block(s, "B"), loop(s, "C", 0)),
     "block B: none of its producers is under the loop i", "B"),
    ("reverse_compute_at", padded_pool(16, 3, 1),
     lambda s: (s.reverse_compute_at, block(s, "pool"), loop(s, "pad", 1)),
     "block pool: what it reads is not known to be what one iteration of i makes in pad: an instance would"
     " read elements of other iterations, or would never run", "pool"),
    ("reverse_compute_at", CHAIN, lambda s: (s.reverse_compute_at, block(s, "C"), loop(s, "B", 0), False, 0),
     "block C: index 0 is not between its producers and consumers there, 1 to 1", "C"),
    ("compute_inline", CHAIN, lambda s: (s.compute_inline, block(s, "D")),
     "block D: writes an output of its scope", "D"),
    ("compute_inline", softmax(7), lambda s: (s.compute_inline, block(s, "top")),
     "block top: it is not complete: its axis v_k is reduce, not spatial", "top"),
    ("compute_inline", TEMPORARY, lambda s: (s.compute_inline, block(s, "B")),
     "block B: its instances are not known to write elements of their own: axis v_i is not used", "B"),
    ("reverse_compute_inline", CHAIN, lambda s: (s.reverse_compute_inline, block(s, "C")),
     "block C: it has no producer whose result it alone reads, inside its scope", "C"),
    ("reverse_compute_inline", softmax(7), lambda s: (s.reverse_compute_inline, block(s, "y")),
     "block y: its producer total is a reduction: an element is not final in the store that would change", "y"),
    ("reverse_compute_inline", MATMUL, lambda s: (s.reverse_compute_inline, written_back(s, "C")),
     "block C_global: its producer C is a reduction: an element is not final in the store that would change",
     "C_global"),
    # reductions
    ("decompose_reduction", CHAIN, lambda s: (s.decompose_reduction, block(s, "B"), loop(s, "B", 0)),
     "block B is not a reduction block: it has no init", "B"),
    ("decompose_reduction", softmax(7), lambda s: (s.decompose_reduction, block(s, "top"), loop(s, "total", 0)),
     "the loop i is not around block top", "top"),
    ("decompose_reduction", MATMUL, lambda s: (s.decompose_reduction, *inner_reduction(s)),
     "the loop k around i runs the reduction: each of its steps would start anew", "C"),
    ("rfactor", MATMUL, lambda s: (s.rfactor, loop(s, "C", 0), 0),
     "block C: the loop i does not run the reduction", "C"),
    ("rfactor", MATMUL, lambda s: (s.rfactor, loop(s, "C", 2), 3),
     "block C: factor_axis 3 is not between -3 and 2", "C"),
    ("rfactor", CHAIN, lambda s: (s.rfactor, loop(s, "B", 0), 0),
     "block B is not a reduction block: it has no init", "B"),
    ("rfactor", LAST, lambda s: (s.rfactor, loop(s, "C", 1), 0),
     "block C: its reduction is not known: x op y for a commutative op, or an argmax or argmin by Select", "C"),
    # blocks of blocks
    ("blockize", CHAIN, lambda s: (s.blockize, beside(s)),
     "under loop i is not one nest of loops around one block", "D"),
    ("blockize", MATMUL, lambda s: (s.blockize, part_of_rows(s)),
     "block C: axis v_i mixes loops outside and inside of the new block in one term", "C"),
    ("tensorize", MATMUL, lambda s: (s.tensorize, block(s, "C"), "dot_17"),
     f"there is no intrinsic 'dot_17'; there are: {', '.join(names())}", ""),
    ("tensorize", MATMUL, lambda s: (s.tensorize, loop(s, "C", 1), dot_name(4, "int8", "int8")),
     "block C_o is not what intrinsic 'dot_4x4_i8i8i32' describes: loop j runs 10 times, the description's"
     " loop i 4", "C"),
    ("tensorize", tiled(b="uint8"), lambda s: (s.tensorize, loop(s, "C", 3), dot_name(16, "uint8", "int8")),
     "block C_o is not what intrinsic 'dot_16x4_u8i8i32' describes: it computes uint8 where the "
     "description has int8", "C"),
    # choices
    ("sample_perfect_tile", SYMBOLIC, lambda s: (s.sample_perfect_tile, loop(s, "B", 0), 2),
     "loop i has no constant extent", "B"),
    ("sample_perfect_tile", MATMUL, lambda s: (s.sample_perfect_tile, loop(s, "C", 0), 2, 16, (5, 2)),
     "(5, 2) are not 2 factors of the extent 12", "C"),
    ("sample_perfect_tile", MATMUL, lambda s: (s.sample_perfect_tile, loop(s, "C", 0), 2, 2, (3, 4)),
     "the innermost factor 4 is above 2", "C"),
    ("sample_perfect_tile", MATMUL, lambda s: (s.sample_perfect_tile, loop(s, "C", 0), 0),
     "0 factors of at most 16 are none", ""),
    ("sample_categorical", MATMUL, lambda s: (s.sample_categorical, [1, 2], [1.0]),
     "2 candidates with 1 probabilities", ""),
    ("sample_categorical", MATMUL, lambda s: (s.sample_categorical, [1, 2], [0.5, -0.5]),
     "(0.5, -0.5) are no probabilities", ""),
    ("sample_categorical", MATMUL, lambda s: (s.sample_categorical, [1, 2], [0.5, 0.5], 2),
     "there is no candidate 2 among 2", ""),
    ("sample_compute_location", CHAIN, lambda s: (s.sample_compute_location, block(s, "D")),
     "nothing reads what block D writes", "D"),
    ("sample_compute_location", CHAIN, lambda s: (s.sample_compute_location, block(s, "C"), 2),
     "there is no loop 2 around the consumers of C", "C"),
]
# fmt: on


def identify(row: Any) -> str:
    return row if isinstance(row, str) and row.isidentifier() else ""


@pytest.mark.parametrize(("primitive", "text", "act", "reason", "shows"), REFUSED, ids=identify)
def test_what_is_refused_is_named_and_leaves_the_schedule_as_it_was(
    primitive: str, text: str, act: Callable[[Schedule], Call], reason: str, shows: str
) -> None:
    sch = schedule(text)
    method, *arguments = act(sch)
    before = sch.module, sch.trace
    with pytest.raises(ScheduleError) as refused:
        method(*arguments)
    assert (refused.value.primitive, refused.value.reason) == (primitive, reason)
    assert refused.value.message.startswith(f"{primitive}: {reason}")
    assert (f'T.block("{shows}")' in refused.value.message) if shows else ("T.block" not in refused.value.message)
    assert (sch.module, sch.trace) == before


def test_every_primitive_refuses_something() -> None:
    assert {row[0] for row in REFUSED} == Schedule.primitives_of()


def tiled_product(text: str) -> Schedule:
    sch = schedule(text)
    i, j, k = sch.get_loops(sch.get_block("C"))
    i_0, i_1 = sch.split(i, [3, 4])
    sch.reorder(i_0, j, i_1, k)
    sch.vectorize(i_1)
    return sch


@pytest.mark.parametrize(
    ("other", "number", "call", "reason"),
    [
        (
            MATMUL.replace('block("C")', 'block("D")'),
            0,
            'C = sch.get_block("C", "main")',
            "there is no block 'C'; there are: root, D",
        ),
        (
            MATMUL.replace("def main", "def other"),
            0,
            'C = sch.get_block("C", "main")',
            "module 'Module' has no function 'main'",
        ),
        (
            MATMUL.replace("12", "13"),
            2,
            "i_0, i_1 = sch.split(i, (3, 4))",
            "the factors do not cover the extent of loop i",
        ),
        (ROW_SUM, 1, "i, j, k = sch.get_loops(C)", "it gives 2 results here"),
    ],
)
def test_a_trace_that_no_longer_fits_names_the_number_and_the_text_of_the_instruction(
    other: str, number: int, call: str, reason: str
) -> None:
    trace = tiled_product(MATMUL).trace
    again = schedule(other)
    with pytest.raises(TraceError) as unfit:
        trace.apply_to(again)
    assert unfit.value.message.startswith(f"instruction {number} of the trace, {call}, does not fit this module: ")
    assert reason in unfit.value.message
    assert list(again.trace)[:number] == list(trace)[:number]
