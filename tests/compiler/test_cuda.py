"""CUDA: each corpus program builds, is assembled by NVIDIA's tools where they are, and computes the right thing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compiler_service.build import BuiltVariant, build_variant
from compiler_service.codegen.ptx import known_architectures
from crossfarm.artifact import DeviceCapabilities
from crossfarm.artifact.select import missing
from crossfarm.errors import BuildFailed, ProgramError, UnsupportedTarget
from crossfarm.frontends.tvmscript import parse
from crossfarm.target import Target
from crossfarm.wire.v1 import compiler_pb2
from tests.compiler.gpu_on_cpu import GpuOnCpu, tool
from tests.compiler.test_corpus import BY_NAME, arguments_of
from tests.compiler.test_language import A_B, source

#: NVIDIA's assembler of today knows nothing older; code for older GPUs is assembled for this one.
OLDEST_ASSEMBLED = 75
SOME = ("gpu_matmul_shared", "softmax_last", "cast_f32_f16", "argmax_axis1")
#: First, where this much is sure to work for any program; last of all, where everything is new.
ALL_FOR, SOME_FOR = (53, 90), (62, 72, 75, 87, 120)
FORMS = ("cuda_c", "ptx")


def build(module_text: str, sm: int = 53, **attributes: object) -> BuiltVariant:
    target = Target({"kind": "cuda", "sm": sm, **attributes})
    return build_variant(parse(module_text), target, compiler_pb2.BuildOptions(keep_sources=True))


def build_corpus(corpus: Path, name: str, sm: int) -> BuiltVariant:
    return build((corpus / f"{name}.py").read_text(), sm)


def assemble(built: BuiltVariant, sm: int, folder: Path) -> str:
    """What ptxas says of the code: registers, spills."""
    code = folder / "kernels.ptx"
    code.write_bytes(built.code)
    arch = f"-arch=sm_{max(sm, OLDEST_ASSEMBLED)}"
    ran = subprocess.run([tool("ptxas"), arch, "-v", str(code), "-o", "/dev/null"], capture_output=True, text=True)
    assert ran.returncode == 0, f"{ran.stderr}\n{built.code.decode()}"
    return ran.stderr


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BY_NAME)
def test_a_corpus_program_gives_its_stored_outputs(corpus: Path, name: str, form: str) -> None:
    """Each form under other circumstances than the other: schedule, order of threads."""
    case = BY_NAME[name]
    module = parse((corpus / f"{name}.py").read_text(), name)
    schedule = "none" if form == "cuda_c" else "default"
    kernels = GpuOnCpu(module, form, backward=form == "cuda_c", schedule=schedule)
    arguments, outputs = arguments_of(case, np.load(corpus / f"{name}.npz"))
    kernels(case["func"], *arguments)
    for actual, expected in outputs:
        np.testing.assert_allclose(actual, expected, rtol=case["rtol"], atol=case["atol"])


@pytest.mark.parametrize("name", SOME)
def test_forms_schedules_and_orders_of_threads_change_nothing(corpus: Path, name: str) -> None:
    case = BY_NAME[name]
    module = parse((corpus / f"{name}.py").read_text(), name)
    for form, schedule in zip(FORMS, ("default", "none")):
        kernels = GpuOnCpu(module, form, "cuda sm=90", backward=form == "ptx", schedule=schedule)
        arguments, outputs = arguments_of(case, np.load(corpus / f"{name}.npz"))
        kernels(case["func"], *arguments)
        for actual, expected in outputs:
            np.testing.assert_allclose(actual, expected, rtol=case["rtol"], atol=case["atol"])


@pytest.mark.parametrize("name", BY_NAME)
def test_ptx_of_a_corpus_program_is_assembled(corpus: Path, name: str, tmp_path: Path) -> None:
    for sm in (*ALL_FOR, *(SOME_FOR if name in SOME else ())):
        built = build_corpus(corpus, name, sm)
        assert f".target sm_{sm}".encode() in built.code
        assert built.variant.requires.device_version == str(sm)
        assemble(built, sm, tmp_path)


@pytest.mark.parametrize("name", SOME)
def test_the_readable_source_is_compiled_by_nvcc(corpus: Path, name: str, tmp_path: Path) -> None:
    nvcc = tool("nvcc")
    path = tmp_path / "kernels.cu"
    path.write_text(build_corpus(corpus, name, 53).sources["kernels.cu"])
    command = [nvcc, "-arch=sm_75", "-cubin", str(path), "-o", str(tmp_path / "kernels.cubin")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, f"{ran.stderr}\n{path.read_text()}"


@pytest.mark.parametrize("sm", known_architectures())
def test_every_architecture_has_a_version_of_ptx(corpus: Path, sm: int) -> None:
    built = build_corpus(corpus, "relu", sm)
    major, minor = map(int, re.findall(rb"\.version (\d+)\.(\d+)", built.code)[0])
    assert (major, minor) >= (6, 5)
    assert sm > 75 or (major, minor) == (6, 5), "drivers of the first Jetsons know no newer one"


def test_tiles_of_a_matmul_are_in_registers_and_vectors(corpus: Path, tmp_path: Path) -> None:
    built = build_corpus(corpus, "gpu_matmul_shared", 53)
    code = built.code.decode()
    assert ".local" not in code
    assert code.count("fma.rn.f32") == 4 * 4 * 8, "each product of the inner tile is written out"
    assert "ld.shared.v4" in code
    assert "ld.global.nc" in code
    said = assemble(built, 87, tmp_path)
    assert "0 bytes spill stores" in said


def test_the_same_build_gives_the_same_bytes(corpus: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from tests.compiler.test_cuda import build_corpus\n"
        "sys.stdout.buffer.write(build_corpus(pathlib.Path(sys.argv[1]), 'layer_norm_last', 72).code)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, str(corpus)], capture_output=True, check=True)
    assert ran.stdout == build_corpus(corpus, "layer_norm_last", 72).code
    assert b"layer_norm_kernel" in ran.stdout


# --- what kernels may do to one another's values


def test_what_threads_exchange_through_a_buffer_is_read_anew() -> None:
    module = parse(
        source(
            A_B,
            """
            for g in T.thread_binding(1, thread="blockIdx.x"):
                for t in T.thread_binding(64, thread="threadIdx.x"):
                    B[t] = A[t]
                for k in range(3):
                    for t in T.thread_binding(64, thread="threadIdx.x"):
                        with T.sblock("take"):
                            B[63 - t] = B[63 - t] + T.float32(k)
            """,
        )
    )
    a = np.arange(64, dtype=np.float32)
    for form in FORMS:
        for backward in (False, True):
            kernels = GpuOnCpu(module, form, backward=backward)
            b = np.zeros(64, np.float32)
            kernels("f", a, b)
            np.testing.assert_array_equal(b, a + 3)
        assert re.search(r"ptr addrspace\(1\) nofree[^,]*%p1", kernels.built.sources["kernels.ll"])


def test_a_failure_on_the_device_has_its_message() -> None:
    module = parse(source(A_B, 'for i in range(64):\n    assert A[i] < T.float32(9), "too large"\n    B[i] = A[i]'))
    for form in FORMS:
        kernels = GpuOnCpu(module, form)
        a, b = np.zeros(64, np.float32), np.zeros(64, np.float32)
        kernels("f", a, b)
        a[40] = 10
        with pytest.raises(ProgramError, match="too large"):
            kernels("f", a, b)


@pytest.mark.parametrize("n", [3, 32, 0, -5])
def test_a_scalar_argument_may_size_a_temporary(n: int) -> None:
    body = """
        X = T.alloc_buffer((n * 2,), "float32")
        for i in range(n * 2):
            X[i] = A[i]
        for i in range(n * 2):
            B[i] = X[n * 2 - 1 - i]
    """
    a = np.arange(64, dtype=np.float32)
    expected = np.zeros(64, np.float32)
    expected[: max(0, 2 * n)] = a[: max(0, 2 * n)][::-1]
    for form in FORMS:
        b = np.zeros(64, np.float32)
        GpuOnCpu(parse(source(f"{A_B}, n: T.int32", body)), form)("f", a, b, n)
        np.testing.assert_array_equal(b, expected)


def test_a_function_of_one_thread_may_return_early() -> None:
    text = "for i in range(64):\n    if A[i] > T.float32(5):\n        T.evaluate(T.ret(0))\n    B[i] = A[i]"
    for form in FORMS:
        a, b = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
        GpuOnCpu(parse(source(A_B, text)), form)("f", a, b)
        np.testing.assert_array_equal(b, np.where(a <= 5, a, 0))


# --- refusals


def test_functions_of_float64_are_refused() -> None:
    doubles = A_B.replace("float32", "float64")
    with pytest.raises(BuildFailed, match="there is no tanh of float64 for CUDA devices") as refused:
        build(source(doubles, "for i in range(64):\n    B[i] = T.tanh(A[i])"))
    assert "cast to float32 around tanh" in str(refused.value.hint)
    build(source(doubles, "for i in range(64):\n    B[i] = T.sqrt(A[i]) + T.floor(A[i]) * T.fabs(A[i])"))


def test_a_gpu_that_is_too_old_is_refused_and_one_that_is_too_new_gets_older_code() -> None:
    text = source(A_B, "for i in range(64):\n    B[i] = A[i]")
    with pytest.raises(UnsupportedTarget, match="no code generator for compute capability 52: the least is 53"):
        build(text, 52)
    built = build(text, 999)
    assert built.variant.requires.device_version == str(known_architectures()[-1])
    assert build(text, 88).code == build(text, 87).code


def test_more_shared_memory_than_a_kernel_can_declare_is_refused() -> None:
    body = """
        S = T.alloc_buffer((20000,), "float32", scope="shared")
        for g in T.thread_binding(1, thread="blockIdx.x"):
            for t in T.thread_binding(64, thread="threadIdx.x"):
                for k in range(312):
                    S[k * 64 + t] = A[t]
            for t in T.thread_binding(64, thread="threadIdx.x"):
                for k in range(312):
                    B[t] = S[k * 64 + 63 - t]
    """
    with pytest.raises(BuildFailed, match=r"a CUDA kernel can declare 49,152"):
        build(source(A_B, body), shared_bytes=200_000)


def test_code_for_a_newer_gpu_is_refused_by_an_older_one(corpus: Path) -> None:
    variant = build_corpus(corpus, "relu", 87).variant

    def gpu(sm: str) -> DeviceCapabilities:
        return DeviceCapabilities("cuda", "", "", threads_per_group=1024, shared_bytes=49152, version=sm)

    assert missing(variant, gpu("53")) == ["needs cuda 87, the device has 53"]
    assert missing(variant, gpu("87")) == missing(variant, gpu("120")) == []
