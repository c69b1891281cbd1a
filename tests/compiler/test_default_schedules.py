"""Programs of any size are right under the default schedule, touch nothing but their buffers, and say what was chosen.

Shapes divide nothing. Every call runs between forbidden pages, so that a vector's tail that strays by one element ends
the test, and with a workspace full of NaN, so that what was never written cannot pass for a zero.
"""

from __future__ import annotations

from functools import lru_cache
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler_service.schedules import choose_schedules
from compiler_service.schedules.cpu import RULES
from compiler_service.schedules.cpu.matmul import Matmul
from compiler_service.schedules.machines import Cpu
from crossfarm.errors import BuildFailed
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir import dtype as dt
from crossfarm.ir import interpreter
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import IntImm
from crossfarm.ir.module import IRModule
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.schedule.trace import Trace
from crossfarm.ir.structural import explain_difference
from crossfarm.ir.verify import verify
from crossfarm.target import Target
from crossfarm.target.cpu import host_cpu_features
from tests.compiler import tensor_programs as programs
from tests.compiler.guarded import StrayAccess, call_guarded
from tests.compiler.native import Array, Native
from tests.compiler.sized_programs import FAMILIES, Sized
from tests.compiler.tensor_programs import Program, assert_within
from tests.compiler.test_corpus import BY_NAME, ON_CPU, arguments_of
from tests.compiler.typical_programs import FITTING, LARGE, LEAKY
from tests.conftest import CORPUS

#: What this machine can run of the levels of x86-64.
LEVELS = {
    "x86-64-v2": "sse4.2",
    "x86-64-v3": "avx2",
    "x86-64-v4": "avx512vl",
}
TARGETS = [*(t for t, feature in LEVELS.items() if feature in host_cpu_features()), str(Target.detect())]
TARGET_NAMES = [*TARGETS[:-1], "this machine"]
THREADS = (1, 2, 3)


def profile(examples: int) -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks, print_blob=True)


#: The ``slow`` run of this file looks at so many more.
MORE = 12
EXAMPLES = 8


def check(program: Program, target: str, *calls: dict[str, int], seed: int = 0) -> None:
    """Its schedule is sound, and each call, with sizes by name, gives what numpy says, on every number of threads."""
    module = program.module
    assert_schedule_is_sound(module, target)
    native = Native(module, target)
    for number, sizes in enumerate(calls or ({},)):
        inputs = program.arguments(seed + number, **sizes)
        assert_right(program, native, inputs, threads=THREADS[(seed + number) % len(THREADS)])


def assert_right(program: Program, native: Native, inputs: list[Array], threads: int = 2) -> None:
    """It gives what numpy says, with forbidden pages after the buffers and with ones before them."""
    wanted = programs.expected(program, inputs)
    for at_end in (True, False):
        empty = [_unwritten(v.shape, t.dtype) for (v, _), t in zip(wanted, program.outputs, strict=True)]
        found = call_guarded(native, "main", inputs, empty, at_end=at_end, threads=threads)
        for got, (value, error), tensor in zip(found, wanted, program.outputs, strict=True):
            assert_within(got, value, error, tensor.name)


def _unwritten(shape: tuple[int, ...], dtype: str) -> Array:
    array = np.empty(shape, dt.to_numpy(dtype))
    array.reshape(-1).view(np.uint8).fill(1 if dtype == "bool" else 0x5A)
    return array


def assert_schedule_is_sound(module: IRModule, target: str) -> dict[str, str]:
    """The scheduled module is well-formed, reads back, and follows from its traces; the rule of each block."""
    made = choose_schedules(module, Target(target).resolved())
    verify(made.module)
    difference = explain_difference(parse(made.module.script()), made.module)
    assert difference is None, difference
    for name, trace in made.traces.items():
        again = Schedule(IRModule({name: module[name]}))
        Trace.from_json(trace.to_json()).apply_to(again)
        difference = explain_difference(again.module, IRModule({name: made.module[name]}))
        assert difference is None, difference
    assert all(c.reason for c in made.choices)
    return {block: choice.rule for choice in made.choices for block in choice.blocks}


# -- programs of every size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_any_size_gives_what_numpy_says_and_touches_nothing_else(family: str) -> None:
    @profile(EXAMPLES)
    @given(made=FAMILIES[family](), target=st.sampled_from(TARGETS), seed=st.integers(0, 99))
    def right(made: Sized, target: str, seed: int) -> None:
        check(made[0], target, *made[1], seed=seed)

    right()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("family", FAMILIES)
def test_many_more_sizes_give_what_numpy_says(family: str) -> None:
    @profile(EXAMPLES * MORE)
    @given(made=FAMILIES[family](), target=st.sampled_from(TARGETS), seed=st.integers(0, 99))
    def right(made: Sized, target: str, seed: int) -> None:
        check(made[0], target, *made[1], seed=seed)

    right()


# -- what a size does not show ---------------------------------------------------------------------------------------

NOT_NUMBERS = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


@pytest.mark.parametrize("value", NOT_NUMBERS.values(), ids=NOT_NUMBERS)
@pytest.mark.parametrize("name", LEAKY)
def test_what_is_no_number_stays_where_it_belongs(name: str, value: float) -> None:
    """Padding is zeros, and zero times infinity is not: none of it may reach a result."""
    program, sizes = LEAKY[name]
    native = _built(name, TARGETS[-1])
    for position in range(len(program.inputs)):
        inputs = program.arguments(3, **sizes)
        flat = inputs[position].reshape(-1)
        flat[[0, flat.size // 2, flat.size - 1]] = value
        assert_right(program, native, inputs)


@lru_cache
def _built(name: str, target: str) -> Native:
    return Native(LEAKY[name][0].module, target)


def test_a_row_without_a_number_does_not_spoil_the_softmax_of_others() -> None:
    program = programs.softmax((9,), 37)
    native = Native(program.module, TARGETS[-1])
    (x,) = program.arguments()
    x[4, 5] = np.nan
    x[6] = -np.inf
    x[7, 3] = np.inf
    (found,) = call_guarded(native, "main", [x], [np.zeros_like(x)], at_end=True)
    others = [0, 1, 2, 3, 5, 8]
    ((value, error),) = programs.expected(program, [x[others]])
    assert_within(found[others], value, error, "result")
    assert np.isnan(found[[4, 6, 7]]).any(axis=1).all()


@pytest.mark.parametrize("name", LARGE)
def test_what_is_large_enough_for_threads_is_right_on_any_number_of_them(name: str) -> None:
    program = LARGE[name]
    for target in TARGETS[-1:]:
        assert_schedule_is_sound(program.module, target)
        native = Native(program.module, target)
        inputs = program.arguments()
        wanted = programs.expected(program, inputs)
        for threads in (*THREADS, 7):
            empty = [_unwritten(v.shape, t.dtype) for (v, _), t in zip(wanted, program.outputs, strict=True)]
            found = call_guarded(native, "main", inputs, empty, at_end=threads % 2 == 0, threads=threads)
            for got, (value, error), tensor in zip(found, wanted, program.outputs, strict=True):
                assert_within(got, value, error, f"{tensor.name} on {threads} threads")


SCRIPTS = {
    "scan": """
@T.prim_func
def main(X: T.Buffer((37, 13), "float32"), Y: T.Buffer((37, 13), "float32")):
    for i, j in T.grid(37, 13):
        with T.block("scan"):
            vi, vj = T.axis.remap("SS", [i, j])
            if vi == 0:
                Y[vi, vj] = X[vi, vj]
            else:
                Y[vi, vj] = Y[vi - 1, vj] + X[vi, vj]
""",
    "backward scan along rows": """
@T.prim_func
def main(x: T.handle, y: T.handle):
    n = T.int64()
    m = T.int64()
    X = T.match_buffer(x, (n, m), "float32")
    Y = T.match_buffer(y, (n, m), "float32")
    for i, j in T.grid(n, m):
        with T.block("scan"):
            vi = T.axis.spatial(n, i)
            vj = T.axis.opaque(m, j)
            Y[vi, m - 1 - vj] = X[vi, m - 1 - vj] + T.if_then_else(vj == 0, T.float32(0), Y[vi, m - vj])
""",
    "scatter": """
@T.prim_func
def main(X: T.Buffer((70,), "int32"), Y: T.Buffer((8,), "int32")):
    for i in range(8):
        with T.block("zero"):
            vi = T.axis.spatial(8, i)
            Y[vi] = 0
    for i in range(70):
        with T.block("count"):
            vi = T.axis.reduce(70, i)
            Y[T.bitwise_and(X[vi], 7)] = Y[T.bitwise_and(X[vi], 7)] + 1
""",
    "search": """
@T.prim_func
def main(X: T.Buffer((33,), "float32"), Y: T.Buffer((33,), "int32")):
    for i in range(33):
        with T.block("search"):
            vi = T.axis.spatial(33, i)
            low = T.alloc_buffer((1,), "int32")
            low[0] = 0
            while (low[0] < 33) and (X[low[0] % 33] < X[vi]):
                low[0] = low[0] + 1
            Y[vi] = low[0]
""",
    "in place": """
@T.prim_func
def main(X: T.Buffer((35, 35), "float32"), Y: T.Buffer((35, 35), "float32")):
    for i, j in T.grid(35, 35):
        with T.block("copy"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = X[vi, vj]
    for i, j in T.grid(35, 35):
        with T.block("double"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = Y[vi, vj] * T.float32(2)
    for i, j in T.grid(35, 34):
        with T.block("shift"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = Y[vi, vj + 1] + X[vj, vi]
""",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_program_whose_order_matters_keeps_it(name: str) -> None:
    """Scans, scatters, searches and changes in place: the same as the reference interpreter says."""
    module = parse(SCRIPTS[name])
    rng = np.random.default_rng(0)
    x, y = (_filled(rng, p) for p in module["main"].params if isinstance(p, Buffer))
    wanted = y.copy()
    interpreter.run(module, "main", [x, wanted])
    for target in TARGETS:
        assert_schedule_is_sound(module, target)
        native = Native(module, target)
        for at_end in (True, False):
            (found,) = call_guarded(native, "main", [x], [y], at_end=at_end, threads=3)
            np.testing.assert_array_equal(found, wanted)


def _filled(rng: np.random.Generator, param: Buffer) -> Array:
    """Numbers from 0 to 100; a size that only the call knows is 29."""
    shape = tuple(d.value if isinstance(d, IntImm) else 29 for d in param.shape)
    return np.asarray(rng.random(shape) * 100).astype(dt.to_numpy(param.dtype))


# -- the corpus ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize(
    "target", [*LEVELS, "aarch64-linux-generic", "llvm arch=aarch64 cpu=cortex-a76", "raspberry-pi/4b"]
)
def test_schedules_of_the_corpus_are_sound_for_every_target(target: str) -> None:
    for name in ON_CPU:
        assert_schedule_is_sound(parse((CORPUS / f"{name}.py").read_text(), name), target)


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("target", TARGETS, ids=TARGET_NAMES)
def test_the_corpus_gives_its_stored_outputs_on_every_level(target: str) -> None:
    for name in ON_CPU:
        case = BY_NAME[name]
        native = Native(parse((CORPUS / f"{name}.py").read_text(), name), target)
        arguments, outputs = arguments_of(case, np.load(CORPUS / f"{name}.npz"))
        inputs = arguments[: len(arguments) - len(outputs)]
        assert all(a is o for a, (o, _) in zip(arguments[len(inputs) :], outputs, strict=True)), "results come last"
        for at_end in (True, False):
            empty = [np.full_like(o, 77) for o, _ in outputs]
            found = call_guarded(native, case["func"], inputs, empty, at_end=at_end, threads=2)
            for got, (_, wanted) in zip(found, outputs, strict=True):
                np.testing.assert_allclose(got, wanted, rtol=case["rtol"], atol=case["atol"], err_msg=name)


# -- rules by name ---------------------------------------------------------------------------------------------------

#: One block, which changes elements in an order that the data decides.
HISTOGRAM = """
@T.prim_func
def main(X: T.Buffer((70,), "int32"), Y: T.Buffer((8,), "int32")):
    for i in range(70):
        with T.block("count"):
            vi = T.axis.opaque(70, i)
            Y[T.bitwise_and(X[vi], 7)] = Y[T.bitwise_and(X[vi], 7)] + 1
"""


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_a_rule_that_fits_no_block_says_so_with_its_reason(rule: str) -> None:
    module = parse(HISTOGRAM)
    said = rf"rule '{rule}' fits no block of module '\w*': main\.count: \w+"
    with pytest.raises(BuildFailed, match=said) as failure:
        Native(module, schedule=rule)
    assert "schedule='default'" in str(failure.value.hint)


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_a_rule_by_name_is_used_alone_where_it_fits(rule: str) -> None:
    """Each fits some program, and what it leaves as written is right too."""
    program = FITTING[rule]
    native = Native(program.module, TARGETS[-1], schedule=rule)
    made = choose_schedules(program.module, Target(TARGETS[-1]).resolved(), rule)
    assert {choice.rule for choice in made.choices} <= {rule, ""}
    assert_right(program, native, program.arguments())


@pytest.mark.parametrize(("rows", "vectors"), [(16, 4), (31, 1), (1, 32)])
def test_a_register_tile_larger_than_the_target_is_refused_with_both_numbers(rows: int, vectors: int) -> None:
    module = programs.matmul(64, 64, 64).module
    with (
        mock.patch.dict("compiler_service.schedules.RULES", {Cpu: (Matmul(rows=rows, vectors=vectors),)}),
        pytest.raises(BuildFailed, match=rf"tile of {rows} rows by {vectors} vectors needs \d+ registers; .* has 16"),
    ):
        choose_schedules(module, Target("x86-64-v3").resolved(), "matmul")


def test_a_schedule_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(BuildFailed, match="no schedule 'matmull'") as failure:
        Native(parse(HISTOGRAM), schedule="matmull")
    assert all(rule.name in str(failure.value.hint) for rule in RULES)


# -- the guards themselves -------------------------------------------------------------------------------------------

STRAY = """
@T.prim_func
def main(I: T.Buffer((2,), "int64"), X: T.Buffer((9,), "float32"), Y: T.Buffer((9,), "float32")):
    for i in range(9):
        with T.block("Y"):
            vi = T.axis.spatial(9, i)
            Y[vi + I[0]] = X[vi + I[1]]
"""


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("which", [0, 1])
def test_one_element_beyond_a_buffer_is_caught(which: int, at_end: bool) -> None:
    native = Native(parse(STRAY))
    offsets, values = np.zeros(2, np.int64), np.arange(9, dtype=np.float32)
    (found,) = call_guarded(native, "main", [offsets, values], [np.zeros_like(values)], at_end=at_end)
    np.testing.assert_array_equal(found, values)
    offsets[which] = 1 if at_end else -1
    with pytest.raises(StrayAccess, match="SIGSEGV"):
        call_guarded(native, "main", [offsets, values], [np.zeros_like(values)], at_end=at_end)


def test_writing_to_an_input_is_caught() -> None:
    module = parse(STRAY.replace("Y[vi + I[0]] = X[vi + I[1]]", "X[vi] = Y[vi]"))
    arrays = [np.zeros(2, np.int64), np.zeros(9, np.float32)]
    with pytest.raises(StrayAccess):
        call_guarded(Native(module), "main", arrays, [np.zeros(9, np.float32)], at_end=True)
