"""Every primitive is recorded, and its trace as Python text runs on a schedule of the original module."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

import crossfarm as cf
from crossfarm import te
from crossfarm.errors import TraceError
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Var
from crossfarm.ir.schedule.dot_products import dot_name
from crossfarm.ir.schedule.index_map import IndexMap
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.schedule.trace import Trace
from tests.conftest import ROOT
from tests.schedule.programs import CHAIN, MATMUL, SYMBOLIC, schedule
from tests.schedule.test_tensorize import tiled

TwoFunctions = MATMUL + CHAIN.split("class Module:")[1].replace("def main", "def other")


def find(sch: Schedule) -> None:
    root = sch.get_block("root")
    first, *_ = sch.get_child_blocks(root)
    (last,) = sch.get_output_blocks(root)
    sch.get_consumers(first)
    sch.annotate(sch.get_producers(last)[0], "note", 1)


def shape_loops(sch: Schedule) -> None:
    i, j, k = sch.get_loops(sch.get_block("C"))
    i_0, i_1 = sch.split(i, [None, 5])
    k_0, k_1 = sch.split(k, [2, None], disable_predication=True)
    sch.reorder(i_0, j, k_0, i_1, k_1)
    sch.fuse(i_0, j, preserve_unit_iters=False)
    sch.add_unit_loop(sch.get_block("C"))


def split_by_a_size(sch: Schedule) -> None:
    i, _ = sch.get_loops(sch.get_block("B"))
    param = sch.module["main"].params[0]
    assert isinstance(param, Buffer)
    n = te.Value(param.shape[0])
    sch.split(i, [None, ((n + 1) // te.const(2, "int64") - 0 * n).expr])


def mark(sch: Schedule) -> None:
    block = sch.get_block("C")
    i, j, k = sch.get_loops(block)
    sch.bind(i, "blockIdx.x")
    sch.vectorize(j)
    sch.unroll(k)
    sch.annotate(block, "it's", {"of": ("a\n\"'", 1.5, True, None, float("inf"))})
    sch.annotate(k, "gone", (1,))
    sch.unannotate(k, "gone")


def place_buffers(sch: Schedule) -> None:
    sch.set_scope(sch.get_block("B"), 0, "local")
    sch.storage_align(sch.get_block("C"), 0, 0, 16, 4)
    sch.parallel(sch.get_loops(sch.get_block("B"))[0])


def copy(sch: Schedule) -> None:
    product = sch.get_block("C")
    sch.cache_read(product, 0, "local")
    copied = sch.cache_read(product, 1, "global", [product])
    sch.cache_write(product, 0, "local")
    sch.reindex(product, ("read", 0))
    sch.transform_layout(copied, ("write", 0), lambda k, j: [j // 4, k, j % 4], pad_value=0.0)


def lay_out(sch: Schedule) -> None:
    product = sch.get_block("C")
    sch.transform_block_layout(product, lambda i, j, k: [i * 10 + j, 0, k])
    sch.cache_read(product, 0, "global")
    sch.transform_layout(product, ("read", 0), lambda m, *rest: [(m // 4) * 4 + m % 4, *rest])


def pad(sch: Schedule) -> None:
    sch.pad_einsum(sch.get_block("C"), [16, 1, 16])


def move(sch: Schedule) -> None:
    row = sch.get_loops(sch.get_block("D"))[0]
    sch.compute_at(sch.get_block("C"), row, preserve_unit_loops=True)
    sch.compute_at(sch.get_block("B"), row, index=0)


def move_back(sch: Schedule) -> None:
    sch.reverse_compute_at(sch.get_block("C"), sch.get_loops(sch.get_block("B"))[0], index=-2)
    sch.compute_inline(sch.get_block("C"))


def inline_back(sch: Schedule) -> None:
    copy_out = sch.cache_write(sch.get_block("D"), 0, "global")
    sch.reverse_compute_inline(copy_out)


def take_apart(sch: Schedule) -> None:
    block = sch.get_block("C")
    k = sch.get_loops(block)[2]
    partial = sch.rfactor(k, -1)
    sch.decompose_reduction(partial, sch.get_loops(partial)[0])


def make_blocks(sch: Schedule) -> None:
    sch.blockize(sch.get_loops(sch.get_block("D"))[1], preserve_unit_iters=False)


def tensorize(sch: Schedule) -> None:
    sch.tensorize(sch.get_loops(sch.get_block("C"))[3], dot_name(16, "uint8", "int8"))


def draw(sch: Schedule) -> None:
    i, j = sch.get_loops(sch.get_block("D"))
    sch.split(i, sch.sample_perfect_tile(i, 2, max_innermost_factor=3))
    sch.split(j, [None, sch.sample_categorical([2, 4], [0.5, 0.5])])
    sch.compute_at(sch.get_block("C"), sch.sample_compute_location(sch.get_block("C")))


def both_functions(sch: Schedule) -> None:
    for func in ("main", "other"):
        sch.parallel(sch.get_loops(sch.get_block("C", func))[0])


CASES: list[tuple[Callable[[Schedule], None], str]] = [
    (find, CHAIN),
    (shape_loops, MATMUL),
    (split_by_a_size, SYMBOLIC),
    (mark, MATMUL),
    (place_buffers, CHAIN),
    (copy, MATMUL),
    (lay_out, MATMUL),
    (pad, MATMUL),
    (move, CHAIN),
    (move_back, CHAIN),
    (inline_back, CHAIN),
    (take_apart, MATMUL),
    (make_blocks, CHAIN),
    (tensorize, tiled()),
    (draw, CHAIN),
    (both_functions, TwoFunctions),
]


def scheduled(case: Callable[[Schedule], None], text: str) -> Schedule:
    sch = schedule(text)
    case(sch)
    return sch


def run_python(text: str, module: str) -> Schedule:
    scope = {"sch": schedule(module)}
    exec(text, scope)  # noqa: S102 - what users do with it
    return scope["sch"]


@pytest.mark.parametrize(("case", "text"), CASES, ids=[case.__name__ for case, _ in CASES])
def test_a_trace_as_python_and_as_json_gives_the_same_module(case: Callable[[Schedule], None], text: str) -> None:
    sch = scheduled(case, text)
    again = run_python(sch.trace.as_python(), text)
    assert cf.structural_equal(again.module, sch.module)
    assert again.trace == sch.trace
    assert again.trace.as_python() == sch.trace.as_python()
    read = schedule(text)
    Trace.from_json(sch.trace.to_json()).apply_to(read)
    assert cf.structural_equal(read.module, sch.module)


def test_every_primitive_is_tried() -> None:
    tried = {i.primitive for case, text in CASES for i in scheduled(case, text).trace}
    assert tried == Schedule.primitives_of()


def test_every_primitive_is_in_the_documents() -> None:
    listed = re.findall(r"^\| `(\w+)\(", (ROOT / "docs" / "schedules.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(Schedule.primitives_of())


def test_the_text_is_what_a_person_would_write() -> None:
    assert scheduled(shape_loops, MATMUL).trace.as_python() == (
        'C = sch.get_block("C", "main")\n'
        "i, j, k = sch.get_loops(C)\n"
        "i_0, i_1 = sch.split(i, (None, 5))\n"
        "k_0, k_1 = sch.split(k, (2, None), disable_predication=True)\n"
        "sch.reorder(i_0, j, k_0, i_1, k_1)\n"
        "i_0_j_fused = sch.fuse(i_0, j, preserve_unit_iters=False)\n"
        'C = sch.get_block("C", "main")\n'
        "u = sch.add_unit_loop(C)\n"
    )
    assert "lambda k, j: [j // 4, k, j % 4], 0.0)\n" in scheduled(copy, MATMUL).trace.as_python()


def test_loops_of_two_blocks_have_names_of_their_own() -> None:
    sch = schedule(CHAIN)
    for name in ("B", "C"):
        sch.get_loops(sch.get_block(name))
    sch.get_loops(sch.get_block("B"))
    lines = sch.trace.as_python().splitlines()
    assert lines[1::2] == ["i, j = sch.get_loops(B)", "C_i, C_j = sch.get_loops(C)", "i, j = sch.get_loops(B)"]


def test_the_schedule_may_have_any_name_but_that_of_a_result() -> None:
    trace = scheduled(pad, MATMUL).trace
    assert trace.as_python("s").splitlines()[-1] == "s.pad_einsum(C, (16, 1, 16))"
    with pytest.raises(TraceError, match="C is the name of a result"):
        trace.as_python("C")


@pytest.mark.parametrize(
    "outputs",
    [
        lambda i, j: [i - (j - 1) - 2, (i + j) * 3 // 2 % 5, i],
        lambda i, j: [-1 * i + j, 3, te.const(3, "int32")],
        lambda i, j: [te.minimum(i, j * 2), te.maximum(i, 4), te.cast(i, "int32") // te.const(2, "int32")],
        lambda i, j: [te.select((i < j) & ~(i == 3), i << 1, j ^ (i | 3) & j)],
        lambda i, j: [te.const(2, "int64") * 3 - (5 - i), (i - 1) // (j + 1)],
    ],
)
def test_an_index_map_as_text_gives_the_map_again(outputs: Callable[..., list[te.Value]]) -> None:
    first = IndexMap.of(outputs, 2, "int64")
    second = IndexMap.of(eval(str(first), {"te": te}), 2, "int64")  # noqa: S307
    assert str(second) == str(first)
    assert [repr(e) for e in second.outputs] == [repr(_renamed(e, first, second)) for e in first.outputs]


def _renamed(value: object, first: IndexMap, second: IndexMap) -> object:
    from crossfarm.ir.visitor import substitute

    renamed: dict[Var, Var] = dict(zip(first.inputs, second.inputs))
    return substitute(value, renamed)
