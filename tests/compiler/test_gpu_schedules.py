"""Schedules for GPUs: every rule where it belongs, right in any size, within a target's limits, replayed from traces.

The interpreter runs threads one after the other, and what a group loads together once for each of them: programs are
small here. The conformance suite runs the same rules on devices.
"""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler_service.pipeline import run_pipeline
from compiler_service.schedules import choose_schedules
from compiler_service.schedules.gpu import RULES
from compiler_service.schedules.gpu.matmul import Matmul
from compiler_service.schedules.gpu.tiles import GroupTile, best_group_tile
from compiler_service.schedules.machines import Gpu
from crossfarm import te
from crossfarm.errors import BuildFailed
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir import interpreter
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Var
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.stmt import BufferStore, For
from crossfarm.ir.visitor import walk
from crossfarm.target import Target
from tests.compiler import image_programs as images
from tests.compiler import tensor_programs as programs
from tests.compiler.gpu_schedules import (
    GPUS,
    LANES,
    ON_CPU,
    TINY,
    USUAL,
    assert_right,
    check,
    kernels_of,
    rules_of,
    runs_on_several_threads,
)
from tests.compiler.random_programs import random_program
from tests.compiler.tensor_programs import Program
from tests.compiler.test_corpus import BY_NAME, arguments_of
from tests.compiler.test_default_schedules import HISTOGRAM, SCRIPTS, _filled, assert_schedule_is_sound
from tests.conftest import CORPUS

#: For each rule what it is for, of sizes that divide nothing, and sizes of a call.
FITTING: dict[str, tuple[Program, dict[str, int]]] = {
    "matmul": (programs.matmul(19, 21, 23, epilogue="bias+relu"), {}),
    "conv2d": (images.convolution((1, 3, 7, 9), 6, (3, 3), padding=1, epilogue="bias+relu"), {}),
    "windows": (images.depthwise((1, 3, 8, 9), 2, (3, 3), padding=1), {}),
    "rows": (programs.softmax((5,), 67), {}),
    "columns": (programs.reduction((131, 35), (0,), kind="sum"), {}),
    "whole": (programs.reduction((67, 35), (0, 1), kind="sum"), {}),
    "transpose": (programs.transposed((33, 65), (1, 0)), {}),
    "elementwise": (programs.chain((13, 67)), {}),
    "per_result": (programs.reduction((5, 7, 3), (1,), kind="argmax"), {}),
    "fallback": (programs.statistics(9, 35), {}),
}

#: More of each family: layouts, batches, dtypes, and sizes that only the call knows.
MORE: dict[str, tuple[str, Program, dict[str, int]]] = {
    "transposed factors": ("matmul", programs.matmul(te.var("m"), 9, 11, layout="TT"), {"m": 7}),
    "every size of the call's": (
        "matmul",
        programs.matmul(te.var("m"), te.var("n"), te.var("k"), epilogue="bias"),
        {"m": 5, "n": 9, "k": 3},
    ),
    "batches": ("matmul", programs.matmul(5, 7, 9, batch=(2, 2)), {}),
    "batches that share a factor": ("matmul", programs.matmul(5, 9, 7, batch=(3,), shared=True, layout="NT"), {}),
    "bytes": ("matmul", programs.matmul(9, 10, 11, dtype="int8", out="int32", epilogue="relu"), {}),
    "half precision": ("matmul", programs.matmul(9, 10, 11, dtype="float16", out="float32"), {}),
    "strided convolution": ("conv2d", images.convolution((2, 3, 7, 8), 5, (3, 3), padding=2, stride=2), {}),
    "grouped convolution": ("conv2d", images.convolution((1, 4, 5, 6), 8, (3, 3), padding=1, groups=2), {}),
    "convolution of the call's size": (
        "conv2d",
        images.convolution((te.var("n"), 2, 4, 5), 4, (3, 3), padding=1),
        {"n": 2},
    ),
    "largest of windows": ("windows", images.pool((2, 3, 9, 11), (3, 3), kind="max", padding=1, stride=2), {}),
    "mean of windows": ("windows", images.pool((1, 3, 9, 11), (3, 3), kind="mean", padding=1), {}),
    "layer norm": ("rows", programs.norm((2, 5), 71), {}),
    "log softmax of the call's size": (
        "rows",
        programs.softmax((te.var("n"),), te.var("k"), log=True),
        {"n": 5, "k": 3},
    ),
    "argmax of a row": ("rows", programs.reduction((3, 135), (1,), kind="argmax"), {}),
    "short rows": ("rows", programs.softmax((37,), 5), {}),
    "columns of the call's size": (
        "columns",
        programs.reduction((te.var("n"), te.var("m")), (0,), kind="max"),
        {"n": 37, "m": 19},
    ),
    "all of the call's size": ("whole", programs.reduction((te.var("n"), 35), (0, 1), kind="sum"), {"n": 67}),
    "argmin of everything": ("whole", programs.reduction((20000,), (0,), kind="argmin"), {}),
    "several transposes": ("transpose", programs.transposed((3, 9, 11), (0, 2, 1)), {}),
    "transpose of the call's size": (
        "transpose",
        programs.transposed((te.var("n"), te.var("m"), 8), (2, 0, 1)),
        {"n": 3, "m": 7},
    ),
    "short axes": ("elementwise", programs.transposed((3, 4, 5, 2), (2, 0, 3, 1)), {}),
    "gather": ("elementwise", programs.gathered(11, te.var("n"), 37), {"n": 19}),
    "concatenation": ("elementwise", programs.concatenated(9, 5, 7), {}),
}


@pytest.mark.parametrize("target", GPUS.values(), ids=GPUS)
@pytest.mark.parametrize("rule", [r for r in FITTING if r != "fallback"])
def test_each_rule_is_chosen_for_what_it_is_for_and_is_right(rule: str, target: str) -> None:
    program, sizes = FITTING[rule]
    if (rule, target) == ("matmul", USUAL) or (rule, target) == ("conv2d", USUAL):
        assert_schedule_is_sound(program.module, target)  # 256 threads that load together take the interpreter long
        kernels_of(program.module, target)
        found = rules_of(program.module, target)
    else:
        found = check(program, target, sizes)
    assert set(found.values()) == {rule}


@pytest.mark.parametrize("name", MORE)
def test_all_kinds_of_programs_have_their_rule_and_are_right(name: str) -> None:
    rule, program, sizes = MORE[name]
    assert rule in set(check(program, TINY, sizes).values())


@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize("target", [USUAL, ON_CPU, LANES])
def test_all_kinds_of_programs_are_within_the_limits_of_larger_devices(name: str, target: str) -> None:
    _, program, _ = MORE[name]
    assert_schedule_is_sound(program.module, target)
    kernels = kernels_of(program.module, target)
    assert all(runs_on_several_threads(kernel) for kernel in kernels)


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_a_rule_by_name_is_used_alone_where_it_fits(rule: str) -> None:
    program, _ = FITTING[rule]
    made = choose_schedules(program.module, Target(TINY).resolved(), rule)
    assert {choice.rule for choice in made.choices} <= {rule, ""}
    assert rule in {choice.rule for choice in made.choices}
    assert_right(program, made.module, program.arguments())


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_a_rule_that_fits_no_block_says_so_with_its_reason(rule: str) -> None:
    with pytest.raises(BuildFailed, match=rf"rule '{rule}' fits no block of module '\w*': main\.count: \w+"):
        choose_schedules(parse(HISTOGRAM), Target(USUAL).resolved(), rule)


REFUSED = {
    "few rows": (programs.matmul(3, 64, 64), "matmul", "3 rows by 64 columns make no tile"),
    "no product": (programs.reduction((9, 9), (0,), kind="max"), "matmul", "its sum does not start at 0"),
    "one filter a channel": (
        images.depthwise((1, 8, 9, 9), 1, (3, 3)),
        "conv2d",
        "1 filters a channel are too few",
    ),
    "long window": (programs.reduction((3, 100), (1,), kind="sum"), "windows", "or more than 64"),
    "no window": (programs.reduction((9, 20), (0,), kind="sum"), "windows", "no window slides"),
    "many results": (programs.reduction((9, 20000), (0,), kind="sum"), "columns", "results enough for a thread each"),
    "several results": (programs.reduction((9, 9), (1,), kind="sum"), "whole", "more than one result"),
    "in order": (programs.chain((9, 9)), "transpose", "not one result of one operand"),
    "a sum": (programs.reduction((9, 9), (1,), kind="sum"), "elementwise", "it reduces"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rules_refuse_with_the_reason(name: str) -> None:
    program, rule, reason = REFUSED[name]
    with pytest.raises(BuildFailed, match=reason):
        choose_schedules(program.module, Target(USUAL).resolved(), rule)


def test_without_shared_memory_nothing_is_shared() -> None:
    target = "opencl shared_bytes=0"
    assert rules_of(programs.matmul(32, 32, 32).module, target) == {"C": "per_result"}
    assert rules_of(programs.transposed((64, 64), (1, 0)).module, target) == {"result": "elementwise"}
    assert set(rules_of(programs.softmax((9,), 67).module, target).values()) == {"per_result", "elementwise"}
    assert rules_of(programs.reduction((670, 35), (0,), kind="sum").module, target) == {"reduced": "per_result"}


def test_groups_of_one_thread_are_enough() -> None:
    for program in (programs.softmax((5,), 67), programs.matmul(9, 9, 9), programs.transposed((9, 11), (1, 0))):
        check(program, "opencl max_threads_per_group=1")


# -- any size --------------------------------------------------------------------------------------------------------

SIZES = st.integers(1, 13)
LONG = st.integers(1, 90)
FEW = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
TARGETS = st.sampled_from([TINY, ON_CPU])


@FEW
@given(m=SIZES, n=SIZES, k=SIZES, layout=st.sampled_from(["NN", "NT", "TN", "TT"]), target=TARGETS)
def test_matmuls_of_any_size(m: int, n: int, k: int, layout: str, target: str) -> None:
    check(programs.matmul(m, n, k, layout=layout, epilogue="bias"), target)


@FEW
@given(m=SIZES, n=SIZES, k=SIZES)
def test_matmuls_of_sizes_that_only_the_call_knows(m: int, n: int, k: int) -> None:
    check(programs.matmul(te.var("m"), te.var("n"), te.var("k")), TINY, {"m": m, "n": n, "k": k})


@FEW
@given(
    channels=st.integers(1, 4), filters=st.integers(1, 9), height=st.integers(3, 7), width=st.integers(3, 7),
    kernel=st.sampled_from([1, 2, 3]), stride=st.integers(1, 2), padding=st.integers(0, 2),
)  # fmt: skip
def test_convolutions_of_any_size(
    channels: int, filters: int, height: int, width: int, kernel: int, stride: int, padding: int
) -> None:
    shape = (1, channels, height, width)
    check(images.convolution(shape, filters, (kernel, kernel), stride=stride, padding=padding), TINY)


@FEW
@given(rows=SIZES, length=LONG, target=st.sampled_from(list(GPUS.values())), known=st.booleans())
def test_rows_of_any_size(rows: int, length: int, target: str, known: bool) -> None:
    if known:
        check(programs.softmax((rows,), length), target)
    else:
        check(programs.softmax((te.var("n"),), te.var("k")), target, {"n": rows, "k": length})


@FEW
@given(
    shape=st.lists(SIZES, min_size=1, max_size=4),
    data=st.data(),
    kind=st.sampled_from(["sum", "max", "prod"]),
    target=st.sampled_from(list(GPUS.values())),
)
def test_reductions_of_any_axes(shape: list[int], data: st.DataObject, kind: str, target: str) -> None:
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True).map(sorted))
    check(programs.reduction(tuple(shape), axes, kind=kind), target)


@FEW
@given(shape=st.lists(SIZES, min_size=1, max_size=4), data=st.data(), target=st.sampled_from(list(GPUS.values())))
def test_transposes_and_maps_of_any_size(shape: list[int], data: st.DataObject, target: str) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    check(programs.transposed(tuple(shape), order), target)
    check(programs.chain(tuple(shape)), target)


# -- programs as they come -------------------------------------------------------------------------------------------

#: Convolutions and products that take the interpreter minutes; devices run them in the conformance suite.
LONG_RUNNING = {"squeezenet64_fused_conv2d3_add2_relu2"}


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("target", GPUS.values(), ids=GPUS)
@pytest.mark.parametrize("name", BY_NAME)
def test_the_corpus_scheduled_is_sound_and_within_limits(name: str, target: str) -> None:
    module = parse((CORPUS / f"{name}.py").read_text(), name)
    rules = assert_schedule_is_sound(module, target)
    by_hand = BY_NAME[name]["scheduled"] is not None
    assert by_hand == (not rules)
    assert by_hand or "" not in rules.values()
    if not by_hand:
        assert all(runs_on_several_threads(kernel) for kernel in kernels_of(module, target))


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("name", sorted(set(BY_NAME) - LONG_RUNNING))
def test_the_corpus_scheduled_gives_its_stored_outputs(name: str) -> None:
    case = BY_NAME[name]
    module = parse((CORPUS / f"{name}.py").read_text(), name)
    scheduled = choose_schedules(module, Target(TINY).resolved()).module
    arguments, outputs = arguments_of(case, np.load(CORPUS / f"{name}.npz"))
    interpreter.run(scheduled, case["func"], arguments)
    for found, wanted in outputs:
        np.testing.assert_allclose(found, wanted, rtol=case["rtol"], atol=case["atol"])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_program_whose_order_matters_keeps_it(name: str) -> None:
    """Scans, scatters, searches and changes in place: the same as unscheduled."""
    module = parse(SCRIPTS[name])
    rng = np.random.default_rng(0)
    x, y = (_filled(rng, p) for p in module["main"].params if isinstance(p, Buffer))
    wanted, found = y.copy(), y.copy()
    interpreter.run(module, "main", [x, wanted])
    assert_schedule_is_sound(module, USUAL)
    interpreter.run(choose_schedules(module, Target(USUAL).resolved()).module, "main", [x, found])
    np.testing.assert_array_equal(found, wanted)


def test_what_somebody_scheduled_is_left_alone() -> None:
    sch = Schedule(programs.matmul(32, 32, 32).module)
    i, *_ = sch.get_loops(sch.get_block("C", func="main"))
    sch.bind(i, "threadIdx.x")
    made = choose_schedules(sch.module, Target(USUAL).resolved())
    assert made.module is sch.module
    assert [c.reason for c in made.choices] == ["loop 'i0' is thread_binding"]


# -- sizes of groups and tiles ---------------------------------------------------------------------------------------


def test_a_tile_larger_than_the_target_is_refused_with_both_numbers() -> None:
    module = programs.matmul(64, 64, 64).module
    rule = Matmul(tile=GroupTile(8, 4, 16, 32, 32))
    with (
        mock.patch.dict("compiler_service.schedules.RULES", {Gpu: (rule,)}),
        pytest.raises(BuildFailed, match=r"512 threads and 40960 bytes is too large for .*, which has 256 and 16384"),
    ):
        choose_schedules(module, Target(USUAL).resolved(), "matmul")


@pytest.mark.parametrize("target", ["opencl", TINY, ON_CPU, LANES, "cuda", "nvidia/jetson-nano", "arm/mali-g78"])
@pytest.mark.parametrize("size", [16, 100, 512, None])
def test_the_best_tile_is_within_the_limits_and_loads_evenly(target: str, size: int | None) -> None:
    gpu = Gpu.of(Target(target).resolved())
    for left, right in ((4, 4), (1, 1), (2, 4)):
        tile = best_group_tile(gpu, size, size, size, 1, left, right)
        assert tile is not None
        assert tile.threads <= gpu.threads
        assert tile.shared_bytes(left, right) <= gpu.shared_bytes
        if tile.shared:
            assert tile.steps * tile.rows % tile.threads == 0 == tile.steps * tile.columns % tile.threads


def test_more_groups_than_a_device_starts_along_an_axis_are_refused() -> None:
    module = programs.matmul(16, 16, 16, batch=(1 << 17,)).module
    assert rules_of(module) == {"C": "per_result"}
    with pytest.raises(BuildFailed, match="131072 products of 16 rows are more groups than a device starts"):
        choose_schedules(module, Target(USUAL).resolved(), "matmul")


def test_neighbouring_elements_are_loaded_at_once_where_rows_allow_it() -> None:
    def lanes(shape: tuple[int, ...], dtype: str = "float32") -> int:
        text = choose_schedules(programs.chain(shape, dtype).module, Target(USUAL).resolved()).module.script()
        return next((n for n in (4, 2) if f"T.vectorized(T.int64({n}))" in text), 1)

    assert lanes((512, 256)) == 4
    assert lanes((512, 254)) == 2
    assert lanes((512, 255)) == 1
    assert lanes((512, 256), "float64") == 2
    assert lanes((4, 4)) == 1  # too few for all threads


def test_a_softmax_is_one_kernel_that_stores_nothing_in_between() -> None:
    module = programs.softmax((64,), 300).module
    (kernel,) = kernels_of(module, USUAL)
    assert len(kernel.buffers) == 2
    assert kernel.group == (128, 1, 1)


PROGRAMS_FOR_CORES = {
    "product": programs.matmul(64, 96, 128),
    "transposed product": programs.matmul(64, 96, 128, layout="TT"),
    "product of odd sizes": programs.matmul(61, 37, 53, epilogue="bias"),
    "convolution": images.convolution((1, 16, 14, 14), 32, (3, 3), padding=1),
    "softmax": programs.softmax((256,), 1000),
    "norm": programs.norm((256,), 512),
}


@pytest.mark.parametrize("target", [ON_CPU, LANES], ids=["threads in turn", "threads as lanes"])
@pytest.mark.parametrize("name", PROGRAMS_FOR_CORES)
def test_cores_that_run_kernels_share_no_memory_and_wait_for_nobody(name: str, target: str) -> None:
    program = PROGRAMS_FOR_CORES[name]
    lowered, _ = run_pipeline(program.module, Target(target).resolved())
    assert "storage_sync" not in lowered.script()
    for kernel in kernels_of(program.module, target):
        assert not kernel.shared
        assert (kernel.threads_per_group == 1) == (target == ON_CPU)


@pytest.mark.parametrize("target", [ON_CPU, LANES], ids=["threads in turn", "threads as lanes"])
def test_tiles_of_cores_are_right(target: str) -> None:
    check(programs.matmul(17, 37, 35, epilogue="bias"), target)
    check(programs.matmul(16, 32, 32, layout="NT"), target)
    check(programs.matmul(16, 32, 32), target)
    check(images.convolution((1, 3, 9, 9), 9, (3, 3), padding=1), target)
    check(programs.softmax((33,), 131), target)


def test_a_core_loads_a_tile_in_loops_that_its_compiler_can_digest() -> None:
    """Hundreds of loads with their conditions in a row took a driver's compiler half a minute a kernel."""
    program = images.convolution((1, 16, 14, 14), 32, (3, 3), padding=1)
    lowered, _ = run_pipeline(program.module, Target(ON_CPU).resolved())
    (kernel,) = (func for func in lowered.prim_funcs.values() if func.private)
    loads = [n for n in walk(kernel.body) if isinstance(n, For) and _stores_alone(n, "pad_reindex_pad")]
    assert len(loads) == 2
    assert {n.kind for n in loads} == {"serial"}


@pytest.mark.parametrize("target", [ON_CPU, LANES], ids=["threads in turn", "threads as lanes"])
@pytest.mark.parametrize(
    ("width", "divided"), [(32, False), (28, False), (9, True)], ids=["vectors", "nearly vectors", "narrow"]
)
def test_a_core_computes_pixels_of_one_row_where_they_fill_vectors(width: int, divided: bool, target: str) -> None:
    program = images.convolution((1, 3, 3, width), 4, (3, 3), padding=1, epilogue="bias+relu")
    assert set(check(program, target).values()) == {"conv2d"}
    lowered, _ = run_pipeline(program.module, Target(target).resolved())
    assert (f"% {width}" in lowered.script()) == divided


def _stores_alone(node: For, name: str) -> bool:
    stores = {n.buffer.name for n in walk(node.body) if isinstance(n, BufferStore)}
    return stores == {name}


@pytest.mark.parametrize("target", [USUAL, ON_CPU], ids=["GPU", "CPU"])
def test_no_loop_that_stays_one_chooses_among_the_results_of_a_thread(target: str) -> None:
    lowered, _ = run_pipeline(programs.matmul(64, 64, 64).module, Target(target).resolved())
    nodes = [n for func in lowered.functions.values() for n in walk(func.body)]
    variables = {n.var for n in nodes if isinstance(n, For) and n.kind == "serial"}
    kept = [n for n in nodes if isinstance(n, (BufferLoad, BufferStore)) and n.buffer.scope == "local"]
    assert variables
    assert kept
    assert not any(v in variables for n in kept for index in n.indices for v in walk(index) if isinstance(v, Var))


MIRRORED = """
@T.prim_func
def main(A: T.Buffer((19, 131), "float32"), B: T.Buffer((19, 131), "float32")):
    total = T.alloc_buffer(({total},), "float32")
    for i, j in T.grid(19, 131):
        with T.block("total"):
            vi, vj = T.axis.remap("{kinds}", [i, j])
            with T.init():
                total[{own}] = T.float32(0)
            total[{own}] = total[{own}] + A[vi, vj]
    for i, j in T.grid(19, 131):
        with T.block("share"):
            vi, vj = T.axis.remap("SS", [i, j])
            B[vi, vj] = A[vi, vj] - total[{other}]
"""


@pytest.mark.parametrize("target", GPUS.values(), ids=GPUS)
@pytest.mark.parametrize("axis", [0, 1], ids=["columns", "rows"])
def test_what_a_reduction_leaves_for_another_kernel_is_in_memory(axis: int, target: str) -> None:
    own, kinds, extent = (("vj", "RS", 131), ("vi", "SR", 19))[axis]
    text = MIRRORED.format(total=extent, kinds=kinds, own=own, other=f"{extent - 1} - {own}")
    module = parse("from crossfarm.script import tir as T\n" + text)
    kernels = kernels_of(module, target)
    assert len(kernels) >= 2
    scheduled = choose_schedules(module, Target(target).resolved()).module
    a = np.random.default_rng(axis).standard_normal((19, 131), np.float32)
    found = np.zeros_like(a)
    interpreter.run(scheduled, "main", [a, found])
    np.testing.assert_allclose(found, a - np.flip(a.sum(axis, keepdims=True)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", [*GPUS.values(), "cuda", "x86-64-v4"])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_blocks_that_exchange_anything_build_and_are_right(target: str, seed: int) -> None:
    text, rows, columns = random_program(seed)
    module = parse(text)
    run_pipeline(module, Target(target).resolved())
    scheduled = choose_schedules(module, Target(target).resolved()).module
    x, z = np.random.default_rng(seed).standard_normal((2, rows, columns), np.float32)
    wanted, found = np.zeros_like(x), np.zeros_like(x)
    interpreter.run(module, "main", [x, z, wanted])
    interpreter.run(scheduled, "main", [x, z, found])
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5 * scale)
