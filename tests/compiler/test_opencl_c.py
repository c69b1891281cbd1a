"""The text of kernels in OpenCL C: readable, and right about names, types and what is only known at run time."""

from __future__ import annotations

import textwrap

import pytest

from compiler_service.build import build_variant
from crossfarm.errors import BuildFailed
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.module import IRModule
from crossfarm.target import Target
from crossfarm.wire.v1.compiler_pb2 import BuildOptions


def function(body: str, params: str) -> IRModule:
    text = f"@T.prim_func\ndef f({params}):\n    T.func_attr({{'tir.noalias': True}})\n"
    return parse("from crossfarm.script import tir as T\n" + text + textwrap.indent(textwrap.dedent(body), "    "))


def text_of(module: IRModule, **attributes: object) -> str:
    built = build_variant(module, Target({"kind": "opencl", **attributes}), BuildOptions(schedule="none"))
    return built.code.decode()


EXCHANGE = function(
    """
    S = T.alloc_buffer((64,), "float32", scope="shared")
    for b in T.thread_binding(4, thread="blockIdx.x"):
        for t in T.thread_binding(16, thread="threadIdx.x"):
            S[b * 16 + t] = A[b * 16 + t] * T.float32(0.1)
        for t in T.thread_binding(16, thread="threadIdx.x"):
            if b * 16 + t < 60:
                B[b * 16 + t] = T.max(S[b * 16 + (t + 8) % 16], T.float32(0))
    """,
    'A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")',
)


def test_a_kernel_reads_as_somebody_would_write_it() -> None:
    assert text_of(EXCHANGE) == textwrap.dedent("""\
        inline float cf_max_float32(float a, float b) { return a > b ? a : b; }

        __kernel __attribute__((reqd_work_group_size(16, 1, 1))) void f_kernel(__global const float *restrict A, __global float *B) {
          __local float S[16];
          const int block_x = get_group_id(0);
          const int thread_x = get_local_id(0);
          S[thread_x] = A[block_x * 16 + thread_x] * 0x1.99999a0000000p-4f;
          barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
          if (((block_x * 16) + thread_x) < 60) {
            B[block_x * 16 + thread_x] = cf_max_float32(S[(thread_x + 8) % 16], 0.0f);
          }
        }
        """)  # noqa: E501


def test_the_same_module_gives_the_same_text() -> None:
    assert text_of(EXCHANGE) == text_of(EXCHANGE)


def test_names_that_the_language_has_are_not_used() -> None:
    params = 'half: T.Buffer((8,), "float32"), kernel: T.Buffer((8,), "float32")'
    text = text_of(function("for int in range(8):\n    kernel[int] = T.exp(half[int])", params))
    assert "kernel_1[int_1] = exp(half_1[int_1]);" in text


def test_float64_is_refused_where_the_target_has_none_and_said_where_it_has() -> None:
    module = function("for i in range(8):\n    A[i] = A[i] + T.float64(1)", 'A: T.Buffer((8,), "float64")')
    with pytest.raises(BuildFailed, match=r"kernel 'f_kernel' computes in float64, which target .* does not have"):
        text_of(module)
    assert "cl_khr_fp64" in text_of(module, fp64=True)


def test_float16_is_computed_in_float32_where_the_target_has_none() -> None:
    module = function("for i in range(8):\n    A[i] = A[i] + T.float16(1)", 'A: T.Buffer((8,), "float16")')
    assert "A[i] = cf_float_to_half(cf_half_to_float(A[i]) +" in text_of(module)
    assert "cl_khr_fp16" not in text_of(module)
    assert "A[i] = A[i] + ((half)1.0f);" in text_of(module, fp16=True)


def test_offsets_into_buffers_of_symbolic_size_have_64_bits() -> None:
    body = """
        n = T.int32()
        A = T.match_buffer(a, (n, n), "float32")
        for i, j in T.grid(n, n):
            A[i, j] = T.float32(0)
    """
    assert "A[(long)i * (long)n + (long)j] = 0.0f;" in text_of(function(body, "a: T.handle"))


def test_an_extern_function_that_no_kernel_has_is_refused() -> None:
    body = 'T.evaluate(T.call_extern("handle", "memcpy", T.address_of(A[0]), T.address_of(A[4]), 16))'
    with pytest.raises(BuildFailed, match="'memcpy' cannot be made in OpenCL C"):
        text_of(function(body, 'A: T.Buffer((8,), "float32")'))
