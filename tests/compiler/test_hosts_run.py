"""Libraries for other machines than this, loaded and run there: under QEMU and Wine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler_service.build import build_variant
from crossfarm.artifact import DeviceCapabilities, select_variant, write_artifact
from crossfarm.errors import ProgramError
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.expr import Call, StringImm
from crossfarm.ir.interpreter import run
from crossfarm.target import Target
from crossfarm.target.triples import HOSTS
from tests.compiler.foreign import Foreign, Machine
from tests.compiler.graph.programs import Calls, tensor
from tests.compiler.native import slots_of
from tests.compiler.operators import assert_same_bits, edges, programs_of
from tests.compiler.programs import Make, elementwise, module, outputs
from tests.compiler.test_corpus import BY_NAME, ON_CPU, arguments_of
from tests.compiler.test_hosts import DEVICE_LIBRARIES, DIVIDE, FLOATS, OPTIONS, corpus_module

pytestmark = pytest.mark.emulated


@pytest.fixture(scope="module", params=["arm-linux", "riscv64-linux", "aarch64-linux", "x86_64-windows"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine of another kind; ``machine.target`` is what to build for it."""
    arch, system = request.param.split("-")
    return Machine(arch, system, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine("arm", "linux", tmp_path_factory.mktemp("arm"))


def test_one_artifact_runs_on_each_machine_that_it_has_a_variant_for(corpus: Path, machine: Machine) -> None:
    targets = [Target(f"llvm arch={arch} os={system}") for arch, system in HOSTS]
    built = [build_variant(corpus_module(corpus, "matmul_2d"), target, OPTIONS) for target in targets]
    artifact = write_artifact("many", [b.variant for b in built], [b.code for b in built])
    device = DeviceCapabilities(
        "cpu", machine.arch, machine.system, machine.target.enabled_features(), has_library=lambda _: True
    )
    chosen = select_variant(artifact, device)
    assert (chosen.requires.arch, chosen.requires.os) == (machine.arch, machine.system)
    case = BY_NAME["matmul_2d"]
    arguments, expected = arguments_of(case, np.load(corpus / "matmul_2d.npz"))
    slots, workspace = slots_of(chosen.entry_points[0], tuple(arguments))
    suffix = Path(next(s.name for s in artifact.manifest.sections if s.id == chosen.library_section)).suffix
    library = machine.folder / f"many{suffix}"
    library.write_bytes(artifact.code(chosen))
    assert machine.call(library, chosen.entry_points[0].native.symbol, slots, workspace) == 0
    for actual, wanted in expected:
        np.testing.assert_allclose(actual, wanted, rtol=case["rtol"], atol=case["atol"])


@pytest.mark.parametrize("name", ON_CPU)
def test_a_corpus_program_gives_its_stored_outputs_there(corpus: Path, machine: Machine, name: str) -> None:
    case = BY_NAME[name]
    foreign = Foreign(corpus_module(corpus, name), machine.target, machine)
    arguments, expected = arguments_of(case, np.load(corpus / f"{name}.npz"))
    foreign(case["func"], *arguments)
    for actual, wanted in expected:
        np.testing.assert_allclose(actual, wanted, rtol=case["rtol"], atol=case["atol"])


def edge_inputs(group: str, dtypes: tuple[str, ...], vectorized: bool) -> list[list[np.ndarray[Any, Any]]]:
    """Calls' inputs where things go wrong: all pairs of edge values; for vectors some, eight at a time."""
    values = edges(dtypes[0])
    inputs = [values] if len(dtypes) == 1 else [np.repeat(values, len(values)), np.tile(values, len(values))]
    if group == "divisions":
        inputs = [x[inputs[1] != 0] for x in inputs]
    if not vectorized:
        return [inputs]
    starts = np.linspace(0, max(len(inputs[0]) - 8, 0), 2, dtype=int)
    return [[np.resize(x[s : s + 8], 8) for x in inputs] for s in starts]


@pytest.mark.parametrize("group", ["operators", "divisions", "casts"])
def test_operators_mean_there_what_the_interpreter_says(machine: Machine, group: str) -> None:
    programs = programs_of(group)
    built = module(**{name: func for name, (func, _) in programs.items()})
    foreign = Foreign(built, machine.target, machine, opt_level=1, opt_level_set=True)
    for name, (func, dtypes) in programs.items():
        vectorized = name.endswith("_vectorized")
        for inputs in edge_inputs(group, dtypes, vectorized):
            if machine.arch == "arm" and vectorized and dtypes[0] in ("float32", "bfloat16"):
                inputs = [without_denormals(x) for x in inputs]
            expected, actual = (outputs(func, len(dtypes), len(inputs[0])) for _ in range(2))
            run(built, name, [*inputs, *expected])
            foreign(name, *inputs, *actual)
            for param, a, e in zip(func.params[len(dtypes) :], actual, expected):
                assert_same_bits(a, e, f"{name}: {param.name}", inputs)


def without_denormals(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """NEON of 32-bit Arm takes float32's smallest values for zero and gives zero for them."""
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.copysign(values.dtype.type(0), values), values)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("cpu", ["cortex-a7", "cortex-a9", "generic"])
def test_arm_divides_with_and_without_an_instruction(arm: Machine, cpu: str, dtype: str) -> None:
    foreign = Foreign(parse(DIVIDE.format(dtype=dtype)), Target(f"llvm arch=arm cpu={cpu}"), arm)
    rng = np.random.default_rng(5)
    bits = np.iinfo(dtype).bits
    # of every number of digits
    a, b = (
        (rng.integers(0, 2**63, 4096, np.uint64) << 1 >> rng.integers(64 - bits, 64, 4096, np.uint64)).astype(dtype)
        for _ in range(2)
    )
    b[b == 0] = 1
    if dtype.startswith("int"):
        a[::2], b[::3] = -a[::2], -b[::3]
    q, r = np.zeros_like(a), np.zeros_like(a)
    foreign("divide", a, b, q, r)
    np.testing.assert_array_equal(q, a // b)
    np.testing.assert_array_equal(r, a % b)
    with pytest.raises(ProgramError, match="division by zero"):
        foreign("divide", a, b * 0, q, r)


def test_float64_functions_on_the_threads_of_a_parallel_loop(machine: Machine) -> None:
    compare_norms(machine)


def compare_norms(machine: Machine) -> None:
    built = parse(FLOATS)
    foreign = Foreign(built, machine.target, machine, schedule="none")
    assert set(foreign.built.variant.requires.libraries) == DEVICE_LIBRARIES[machine.system]
    a = np.random.default_rng(2).normal(size=(50, 37))
    results = []
    for call in (lambda *args: run(built, "norms", args), lambda *args: foreign("norms", *args)):
        results.append((np.zeros(50), np.zeros((50, 37))))
        call(a, *results[-1])
    for expected, actual in zip(*results):
        np.testing.assert_allclose(actual, expected, rtol=1e-14)


#: Functions of one and of two float64s with which programs may call the C library, as Python has them.
ONE = (
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "cos", "cosh", "erf", "erfc", "exp", "exp2",
    "expm1", "fabs", "floor", "lgamma", "log", "log10", "log1p", "log2", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip
TWO = ("atan2", "copysign", "fmod", "hypot", "nextafter", "pow", "remainder")
OWN = {
    "nearbyint": np.rint, "rint": np.rint, "tgamma": math.gamma, "round": lambda x: math.copysign(int(abs(x) + 0.5), x)
}  # fmt: skip
X = np.array(
    [0.0, -0.0, 1e-9, 0.01, 0.25, 0.5, 0.75, 0.999, 1.0, 1.001, 1.5, 1.99, 2.0, 2.5, 3.0, 5.5, 9.0, 27.0, 1e3, 1e15]
)


def reference(name: str) -> Callable[..., float]:
    found = OWN.get(name) or getattr(math, name)

    def call(*args: float) -> float:
        try:
            return float(found(*args))
        except (ValueError, OverflowError):
            return math.nan  # where C gives nan or an infinity: compared as "anything but a finite number"

    return call


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_functions_of_the_c_library_are_there_without_one(machine: Machine, dtype: str) -> None:
    suffix = "f" if dtype == "float32" else ""
    to, tolerance = np.dtype(dtype).type, 6e-7 if suffix else 2e-14

    def calls(names: Iterable[str]) -> dict[str, Make]:
        return {n: lambda *args, n=n: Call("call_pure_extern", (StringImm(n + suffix), *args), dtype) for n in names}

    one, two = elementwise((dtype,), calls([*ONE, *OWN])), elementwise((dtype, dtype), calls(TWO))
    foreign = Foreign(module(one=one, two=two), machine.target, machine)
    assert set(foreign.built.variant.requires.libraries) <= DEVICE_LIBRARIES[machine.system]
    x = np.concatenate([X, -X]).astype(to)
    y = np.resize([0.5, -2.0, 3.25, 0.0, 1.0, 7.0, -1e-3], x.shape).astype(to)
    for name, func, inputs in (("one", one, [x]), ("two", two, [x, y])):
        results = outputs(func, len(inputs), len(x))
        foreign(name, *inputs, *results)
        for param, result in zip(func.params[len(inputs) :], results):
            call = param.name.removeprefix("out_")
            for *args, got in zip(*inputs, result):
                with np.errstate(over="ignore"):
                    wanted = to(reference(call)(*map(float, args)))
                if call == "nextafter":
                    wanted = np.nextafter(*args)
                where = f"{call}{tuple(map(float, args))} gave {got}, not {wanted}"
                if np.isfinite(wanted):
                    near_zero = tolerance if call == "lgamma" else 1e-300  # whose zeros Python misses too
                    assert got == pytest.approx(wanted, rel=tolerance, abs=near_zero), where
                else:
                    assert not np.isfinite(got), where


STACK = """
from crossfarm.script import tir as T
@T.prim_func
def turn(A: T.Buffer((7168,), "float32"), B: T.Buffer((7168,), "float32")):
    first = T.alloc_buffer((7, 1024), "float32")
    for k in range(7):
        with T.block("copy"):
            vk = T.axis.spatial(7, k)
            part = T.alloc_buffer((1024,), "float32")
            for j in range(1024):
                part[j] = A[vk * 1024 + j]
            for j in range(1024):
                first[vk, j] = part[1023 - j] * T.float32(2)
    for k, j in T.grid(7, 1024):
        with T.block("store"):
            vk, vj = T.axis.remap("SS", [k, j])
            B[vk * 1024 + vj] = first[vk, vj]
"""


def test_temporaries_larger_than_a_page_of_the_stack(machine: Machine) -> None:
    foreign = Foreign(parse(STACK), machine.target, machine, schedule="none")
    a = np.arange(7168, dtype=np.float32)
    b = np.zeros_like(a)
    foreign("turn", a, b)
    np.testing.assert_array_equal(b, 2 * a.reshape(7, 1024)[:, ::-1].ravel())


@pytest.mark.parametrize("arch", ["aarch64", "arm"])
def test_androids_libraries_load_where_libm_and_libc_have_its_names(
    corpus: Path, arch: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    machine = Machine(arch, "android", tmp_path_factory.mktemp(f"{arch}-android"))
    for name in ("matmul_2d", "softmax_last", "cast_f32_f16", "dyn_matmul_nm", "argmax_axis1"):
        case = BY_NAME[name]
        foreign = Foreign(corpus_module(corpus, name), machine.target, machine)
        arguments, expected = arguments_of(case, np.load(corpus / f"{name}.npz"))
        foreign(case["func"], *arguments)
        for actual, wanted in expected:
            np.testing.assert_allclose(actual, wanted, rtol=case["rtol"], atol=case["atol"])
    compare_norms(machine)
    time_steps(machine)


def time_steps(machine: Machine) -> None:
    """A function of four calls, of which the runner has room for the begin and the end of two."""
    b = Calls()
    value = b.parameter("x", tensor(b.n))
    for _ in range(4):
        value = b.call("double", value, out=tensor(b.n))
    foreign = Foreign(b.module(value), machine.target, machine)
    given, made = np.ones(10_000, np.float32), np.zeros(10_000, np.float32)
    foreign("main", given, made)
    np.testing.assert_array_equal(made, 16 * given)
    begin, first, second, beyond = machine.marks
    assert 0 < begin < first < second
    assert beyond == 0, "it keeps to the room that it was given"
    assert second - begin < 60_000_000_000


def test_steps_of_a_function_of_calls_are_timed_there(machine: Machine) -> None:
    time_steps(machine)
