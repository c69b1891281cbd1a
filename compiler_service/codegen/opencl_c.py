"""OpenCL C 1.2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from compiler_service.codegen.c_dialect import C_FUNCTIONS, C_RESERVED, Dialect, Vectors
from compiler_service.codegen.c_like import render_module
from compiler_service.codegen.kernel import Kernel

if TYPE_CHECKING:
    from crossfarm.target import Target

_TYPES = {
    "bool": "bool", "int8": "char", "int16": "short", "int32": "int", "int64": "long", "uint8": "uchar",
    "uint16": "ushort", "uint32": "uint", "uint64": "ulong", "float16": "half", "bfloat16": "ushort",
    "float32": "float", "float64": "double",
}  # fmt: skip


def _pointer(type_: str, const: bool, restrict: bool) -> str:
    return f"__global {'const ' if const else ''}{type_} *{'restrict ' if restrict else ''}"


def _kernel(group: tuple[int, int, int]) -> str:
    x, y, z = group
    return f"__kernel __attribute__((reqd_work_group_size({x}, {y}, {z}))) void"


def _prelude(dtypes: frozenset[str]) -> str:
    lines = []
    if "float64" in dtypes:
        lines += ["#if __OPENCL_VERSION__ < 120", "#pragma OPENCL EXTENSION cl_khr_fp64 : enable", "#endif"]
    return "\n".join(lines)


OPENCL_C = Dialect(
    name="OpenCL C",
    types=_TYPES,
    kernel=_kernel,
    pointer=_pointer,
    shared="__local",
    function="inline",
    index={
        f"{kind}.{axis}": f"get_{function}_id({number})"
        for kind, function in (("blockIdx", "group"), ("threadIdx", "local"))
        for number, axis in enumerate("xyz")
    },
    barrier="barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);",
    functions=C_FUNCTIONS,
    int_functions={"popcount": "popcount(x)", "clz": "clz(x)"},
    saturated=lambda dtype, value: f"convert_{_TYPES[dtype]}_sat_rtz({value})",
    bits=lambda dtype, value: f"as_{_TYPES[dtype]}({value})",
    infinity="INFINITY",
    nan="NAN",
    prelude=_prelude,
    half_helpers="""\
inline float cf_half_to_float(ushort x) { return vload_half(0, (__private const half *)&x); }
inline ushort cf_float_to_half(float x) { ushort r; vstore_half_rte(x, 0, (__private half *)&r); return r; }
""",
    vectors=Vectors(
        type=lambda scalar, lanes: f"{scalar}{lanes}",
        load=lambda lanes, pointer: f"vload{lanes}(0, {pointer})",
        store=lambda lanes, value, pointer: f"vstore{lanes}({value}, 0, {pointer});",
    ),
    reserved=C_RESERVED,
)


def features(kernels: Sequence[Kernel], target: Target) -> tuple[str, ...]:
    """Names of ``crossfarm.target.features`` that a device needs for these kernels.

    Raises:
        BuildFailed: the target does not have one of them.
    """
    needed = []
    for kernel in kernels:
        if kernel.computes_float64(target):
            needed.append("float64")
        if target.attributes.get("fp16", False) and "float16" in kernel.scalar_dtypes():
            needed.append("float16")
    return tuple(sorted(set(needed)))


def emit_module(kernels: Sequence[Kernel], target: Target) -> str:
    """OpenCL C of all kernels, one translation unit.

    Raises:
        BuildFailed: an operation that the language or the target does not have.
    """
    native = bool(target.attributes.get("fp16", False))
    dialect = replace(
        OPENCL_C,
        native_half=native,
        prelude=lambda dtypes: "\n".join(
            [
                *(["#pragma OPENCL EXTENSION cl_khr_fp16 : enable"] if native and "float16" in dtypes else []),
                _prelude(dtypes),
            ]
        ).strip(),
    )
    return render_module(kernels, dialect)
