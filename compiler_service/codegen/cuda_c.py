"""CUDA C: the readable source of kernels whose code is PTX. nvcc compiles it, without headers but CUDA's own."""

from __future__ import annotations

from collections.abc import Sequence

from compiler_service.codegen.c_dialect import C_FUNCTIONS, C_RESERVED, Dialect
from compiler_service.codegen.c_like import render_module
from compiler_service.codegen.kernel import Kernel

_TYPES = {
    "bool": "bool", "int8": "signed char", "int16": "short", "int32": "int", "int64": "long long",
    "uint8": "unsigned char", "uint16": "unsigned short", "uint32": "unsigned int", "uint64": "unsigned long long",
    "float16": "unsigned short", "bfloat16": "unsigned short", "float32": "float", "float64": "double",
}  # fmt: skip

#: Words of C++ and of CUDA that C does not reserve.
_RESERVED = (
    "alignas alignof and and_eq bitand bitor catch char16_t char32_t char8_t co_await co_return co_yield compl concept "
    "const_cast consteval constexpr constinit decltype delete dynamic_cast explicit export friend mutable noexcept not "
    "not_eq nullptr or or_eq private protected public reinterpret_cast requires signed static_assert static_cast "
    "thread_local throw try typeid typename using virtual wchar_t xor xor_eq warpSize dim3 assert errno memcpy memset "
    "signbit HUGE_VAL HUGE_VALF stdin stdout stderr"
)

#: Helpers of any type, by the name that uses of them contain.
_TEMPLATES = {
    "cf_saturate<": """\
// Toward zero, saturating; NaN gives 0.
template <typename To, typename From> __device__ inline To cf_saturate(From x) {
  const bool has_sign = (To)-1 < (To)0;
  const int digits = 8 * (int)sizeof(To) - has_sign;
  const From top = (From)2 * (From)(1ull << (digits - 1));
  const To largest = (To)(~0ull >> (64 - digits)), smallest = has_sign ? (To)(-largest - 1) : (To)0;
  return x != x ? (To)0 : x >= top ? largest : x <= (From)smallest ? smallest : (To)x;
}
""",
    "cf_bits<": """\
// The bits of a value as another type of its size; of an integer that was promoted, its low ones.
template <typename To, typename From> __device__ inline To cf_bits(From x) {
  static_assert(sizeof(From) >= sizeof(To), "a value has the bits that are asked for");
  To bits;
  memcpy(&bits, &x, sizeof(To));
  return bits;
}
""",
}


def _pointer(type_: str, const: bool, restrict: bool) -> str:
    return f"{'const ' if const else ''}{type_} *{'__restrict__ ' if restrict else ''}"


def _kernel(group: tuple[int, int, int]) -> str:
    x, y, z = group
    return f'extern "C" __global__ void __launch_bounds__({x * y * z})'


CUDA_C = Dialect(
    name="CUDA C",
    types=_TYPES,
    kernel=_kernel,
    pointer=_pointer,
    shared="__shared__",
    function="__device__ inline",
    index={f"{tag}.{axis}": f"(int){tag}.{axis}" for tag in ("blockIdx", "threadIdx") for axis in "xyz"},
    barrier="__syncthreads();",
    functions=C_FUNCTIONS,
    int_functions={"popcount": "__popc(x)", "popcount64": "__popcll(x)", "clz": "__clz(x)", "clz64": "__clzll(x)"},
    saturated=lambda dtype, value: f"cf_saturate<{_TYPES[dtype]}>({value})",
    bits=lambda dtype, value: f"cf_bits<{_TYPES[dtype]}>({value})",
    infinity="INFINITY",
    nan="NAN",
    prelude=lambda dtypes: "",
    half_helpers="""\
__device__ inline float cf_half_to_float(unsigned short x) { return __half2float(__ushort_as_half(x)); }
__device__ inline unsigned short cf_float_to_half(float x) { return __half_as_ushort(__float2half_rn(x)); }
""",
    reserved=C_RESERVED | frozenset(_RESERVED.split()),
)


def emit_module(kernels: Sequence[Kernel]) -> str:
    """CUDA C++ of all kernels, one translation unit.

    Raises:
        BuildFailed: an operation that CUDA does not have.
    """
    text = render_module(kernels, CUDA_C)
    headers = "#include <cuda_fp16.h>" if "cf_half_to_float" in text else ""
    templates = "\n".join(definition for use, definition in _TEMPLATES.items() if use in text)
    return "\n\n".join(part for part in (headers, templates.rstrip(), text) if part)
