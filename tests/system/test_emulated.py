"""A real aarch64 agent, under user-mode emulation where there is no board: it builds, leases, runs and survives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import crossfarm as cf
from clients.sdk.farm import Farm
from clients.sdk.loaded import Loaded
from compiler_service.codegen.vector_math import FUNCTIONS
from crossfarm.ir import dtype as dt
from crossfarm.ir import interpreter
from tests.compiler import accuracy
from tests.compiler.dots import LANES, SIGNS, dot_of, dot_program, factors
from tests.compiler.operators import INTEGERS, assert_same_bits, edges, programs_of
from tests.compiler.programs import module, outputs
from tests.compiler.tensor_programs import assert_within
from tests.compiler.tensor_programs import expected as expected_of
from tests.compiler.typical_programs import SCHEDULED
from tests.conftest import CORPUS
from tests.system.emulated import emulated_farm
from tests.system.test_corpus import ON_CPU, arguments_of

pytestmark = [pytest.mark.emulated, pytest.mark.slow]

GROUPS = ("operators", "divisions", "casts")

ADD = """
@I.ir_module
class Module:
    @T.prim_func
    def main(a: T.handle, b: T.handle, c: T.handle):
        n = T.int32()
        A = T.match_buffer(a, (n,), "float32")
        B = T.match_buffer(b, (n,), "float32")
        C = T.match_buffer(c, (n,), "float32")
        for i in range(n):
            with T.block("C"):
                vi = T.axis.spatial(n, i)
                C[vi] = A[vi] + B[vi]
"""

#: Writes where its argument says, without looking.
CRASH = """
@I.ir_module
class Module:
    @T.prim_func
    def main(I: T.Buffer((1,), "int64"), C: T.Buffer((1,), "float32")):
        for i in range(1):
            with T.block("C"):
                vi = T.axis.spatial(1, i)
                C[I[vi]] = T.float32(1)
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm with an emulated aarch64 agent beside this machine's own."""
    with emulated_farm(tmp_path_factory.mktemp("emulated")) as farm:
        yield farm


def test_what_is_built_for_it_runs_there_with_the_right_numbers(farm: Farm) -> None:
    a, b = np.random.default_rng(0).random((2, 1000), dtype=np.float32)
    with farm.acquire("arch=aarch64") as device:
        assert device.attributes["arch"] == "aarch64"
        function = device.load(farm.build(cf.parse(ADD), target=device.target))["main"]
        assert np.array_equal(function(a, b), a + b)
        assert len(function.benchmark(a, b, warmup=1, repeat=3, min_repeat_ms=1).samples) == 3


def test_what_is_built_for_a_generic_board_runs_there_too(farm: Farm) -> None:
    a, b = np.random.default_rng(1).random((2, 10), dtype=np.float32)
    artifact = farm.build(cf.parse(ADD), target="aarch64-linux-generic")
    with farm.acquire("arch=aarch64") as device:
        assert np.array_equal(device.load(artifact)["main"](a, b), a + b)


def test_parallel_loops_run_on_threads_there(farm: Farm) -> None:
    program = ADD.replace("range(n)", "T.parallel(n)")
    a, b = np.random.default_rng(2).random((2, 5000), dtype=np.float32)
    with farm.acquire("arch=aarch64") as device:
        function = device.load(farm.build(cf.parse(program), target=device.target, schedule="none"))["main"]
        for threads in (1, 2, 3):
            assert np.array_equal(function(a, b, threads=threads), a + b)
        measured = function.benchmark(a, b, threads=2, warmup=1, repeat=2, min_repeat_ms=1)
        assert measured.environment["threads"] == "2"


def test_code_for_another_architecture_is_refused_and_named(farm: Farm) -> None:
    artifact = farm.build(cf.parse(ADD), target="x86-64-v3")
    with farm.acquire("arch=aarch64") as device, pytest.raises(cf.IncompatibleArtifact, match="aarch64"):
        device.load(artifact)


def test_a_crash_there_is_the_programs_and_the_device_comes_back(farm: Farm) -> None:
    with pytest.raises(cf.RemoteCrash), farm.acquire("arch=aarch64") as device:
        device.load(farm.build(cf.parse(CRASH), target=device.target))["main"](np.array([2**44]))
    with farm.acquire("arch=aarch64", timeout=60) as device:
        function = device.load(farm.build(cf.parse(ADD), target=device.target))["main"]
        assert np.array_equal(function(np.ones(4, np.float32), np.ones(4, np.float32)), np.full(4, 2, np.float32))


#: Vectors of NEON alone; with dot products and arithmetic on float16; and what the emulated processor says it has.
SCHEDULED_FOR = ["aarch64-linux-generic", "llvm arch=aarch64 cpu=cortex-a76", "its own"]


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("target", SCHEDULED_FOR)
def test_the_corpus_gives_its_stored_outputs_there(target: str, farm: Farm) -> None:
    with farm.acquire("arch=aarch64", timeout=60) as device:
        for case in ON_CPU:
            built = farm.build(
                cf.load(CORPUS / f"{case['name']}.py"), target=device.target if target == "its own" else target
            )
            inputs, expected = arguments_of(case, CORPUS)
            result = device.load(built)[case["func"]](*inputs)
            for got, want in zip(result if isinstance(result, tuple) else (result,), expected, strict=True):
                np.testing.assert_allclose(
                    got, want, rtol=case["rtol"], atol=case["atol"], equal_nan=True, err_msg=case["name"]
                )


@pytest.mark.parametrize("target", SCHEDULED_FOR)
def test_default_schedules_give_there_what_numpy_says(target: str, farm: Farm) -> None:
    with farm.acquire("arch=aarch64", timeout=60) as device:
        for name, (program, sizes) in SCHEDULED.items():
            built = farm.build(program.module, target=device.target if target == "its own" else target)
            inputs = program.arguments(**sizes)
            result = device.load(built)["main"](*inputs)
            wanted = expected_of(program, inputs)
            for got, (value, error) in zip(result if isinstance(result, tuple) else (result,), wanted, strict=True):
                assert_within(got, value, error, f"{name} for {target}")


def test_mathematical_functions_are_there_within_their_stated_error(farm: Farm) -> None:
    with farm.acquire("arch=aarch64", timeout=60) as device:
        for name, function in FUNCTIONS.items():
            args = accuracy.samples(name, step=400_009)
            program = device.load(farm.build(accuracy.functions(name), target=device.target))
            accuracy.assert_within(name, function.ulp, args, program["scalar"](*args))
            sixteen = [a[-16:].copy() for a in args]
            accuracy.assert_within(name, function.ulp, sixteen, program["vector"](*sixteen))


@pytest.mark.parametrize("target", ["its own", "llvm arch=aarch64 cpu=cortex-a76", "aarch64-linux-generic"])
def test_dot_products_are_exact_there_with_the_instructions_and_without(target: str, farm: Farm) -> None:
    with farm.acquire("arch=aarch64", timeout=60) as device:
        for lanes in LANES:
            built = farm.build(dot_program(lanes), target=device.target if target == "its own" else target)
            program = device.load(built)
            for signs in SIGNS:
                a, b, c = factors(signs, lanes)
                expected = dot_of(a, b, c)
                program[signs](a, b, c)
                np.testing.assert_array_equal(c, expected, err_msg=f"{signs}, {lanes}")


@pytest.fixture(scope="module", params=["its own target", "aarch64-linux-generic"])
def groups(request: pytest.FixtureRequest, farm: Farm) -> Iterator[dict[str, Loaded]]:
    """Every operator, division and cast on every dtype, loaded there in one session.

    The emulated processor's own target has SVE and arithmetic on float16; the generic one has neither.
    """
    with farm.acquire("arch=aarch64", timeout=60) as device:
        modules = {group: module(**{n: f for n, (f, _) in programs_of(group).items()}) for group in GROUPS}
        target = device.target if request.param == "its own target" else request.param
        yield {g: device.load(farm.build(m, target=target)) for g, m in modules.items()}


def check(group: str, name: str, inputs: list[Any], program: Loaded) -> None:
    """Runs it there and in the reference interpreter: the same bits."""
    func, dtypes = programs_of(group)[name]
    expected = outputs(func, len(dtypes), len(inputs[0]))
    interpreter.run(module(f=func), "f", [*inputs, *expected])
    for param, got, want in zip(func.params[len(dtypes) :], program[name](*inputs), expected, strict=True):
        assert_same_bits(got, want, f"{name}: {param.name}", inputs)


@pytest.mark.parametrize("group", GROUPS)
def test_operators_mean_there_what_the_interpreter_says(group: str, groups: dict[str, Loaded]) -> None:
    for dtype in INTEGERS if group == "divisions" else dt.SCALARS:
        values = edges(dtype)
        if group == "divisions":
            values = values[values != 0]
        pairs = [np.repeat(values, len(values)), np.tile(values, len(values))]
        inputs = [values] if group == "casts" else pairs
        check(group, f"{dtype}_serial", inputs, groups[group])
        for start in range(0, len(inputs[0]) - 8, max(8, len(inputs[0]) // 10)):
            check(group, f"{dtype}_vectorized", [x[start : start + 8] for x in inputs], groups[group])


@pytest.mark.parametrize("kind", ["serial", "vectorized"])
def test_division_by_zero_fails_the_call_there_and_not_the_device(kind: str, groups: dict[str, Loaded]) -> None:
    for dtype in INTEGERS:
        ones = np.ones(8, dt.to_numpy(dtype))
        zero_inside = ones.copy()
        zero_inside[5] = 0
        with pytest.raises(cf.ProgramError, match=f"integer division by zero in function '{dtype}_{kind}'"):
            groups["divisions"][f"{dtype}_{kind}"](ones, zero_inside)
