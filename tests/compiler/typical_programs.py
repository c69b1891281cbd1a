"""Programs chosen by hand, of sizes that divide nothing: what each rule is for, what may leak, what threads share."""

from __future__ import annotations

from crossfarm import te
from tests.compiler import image_programs as images
from tests.compiler import tensor_programs as programs
from tests.compiler.tensor_programs import Program

#: Whose padding, or whose order of adding up, could bring what is no number where it does not belong; and sizes.
LEAKY: dict[str, tuple[Program, dict[str, int]]] = {
    "matmul": (programs.matmul(37, 41, 23), {}),
    "matmul of transposed factors, a size of the call's": (
        programs.matmul(te.var("m"), 41, 23, layout="TT"),
        {"m": 37},
    ),
    "batched matmul": (programs.matmul(17, 21, 23, batch=(3,)), {}),
    "float16 matmul": (programs.matmul(33, 41, 23, dtype="float16"), {}),
    "convolution": (images.convolution((2, 5, 11, 13), 7, (3, 3), padding=1), {}),
    "grouped convolution": (images.convolution((1, 6, 11, 13), 8, (3, 3), padding=2, stride=2, groups=2), {}),
    "depthwise convolution": (images.depthwise((1, 5, 19, 21), 2, (3, 3), padding=1), {}),
    "mean pooling": (images.pool((1, 3, 19, 21), (3, 3), kind="mean", padding=1), {}),
    "sums of rows": (programs.reduction((13, 67), (1,), kind="sum"), {}),
    "sums of columns": (programs.reduction((67, 35), (0,), kind="sum"), {}),
    "sum of everything": (programs.reduction((61, 35), (0, 1), kind="sum"), {}),
    "chain": (programs.chain((13, 67)), {}),
    "transpose": (programs.transposed((33, 65), (1, 0)), {}),
}


#: Enough work for several threads.
LARGE: dict[str, Program] = {
    "matmul": programs.matmul(259, 301, 127, epilogue="bias+gelu"),
    "matmul of bytes": programs.matmul(131, 213, 219, dtype="uint8", out="int32"),
    "matmul of one row": programs.matmul(1, 1025, 515),
    "convolution": images.convolution((2, 19, 43, 45), 37, (3, 3), padding=1, epilogue="bias+relu"),
    "depthwise convolution": images.depthwise((2, 37, 57, 55), 1, (3, 3), padding=1),
    "softmax": programs.softmax((211,), 1003),
    "layer norm": programs.norm((3, 101), 771),
    "sums of columns": programs.reduction((703, 513), (0,), kind="sum"),
    "sum of everything": programs.reduction((703, 513), (0, 1), kind="sum"),
    "largest of rows": programs.reduction((517, 1003), (1,), kind="argmax"),
    "transpose": programs.transposed((613, 407), (1, 0)),
    "chain": programs.chain((31, 67, 253)),
    "statistics": programs.statistics(309, 415),
}


#: For each rule, by name, what it is for.
FITTING = {
    "depthwise": images.depthwise((1, 8, 33, 35), 1, (3, 3), padding=1),
    "conv2d": images.convolution((1, 8, 19, 21), 9, (3, 3), padding=1, epilogue="bias"),
    "pooling": images.pool((1, 8, 33, 35), (3, 3), kind="max", padding=1, stride=2),
    "skinny_matmul": programs.matmul(1, 131, 67),
    "dot_products": programs.matmul(1, 131, 64, layout="NT"),
    "matmul_int8": programs.matmul(35, 37, 39, dtype="int8", out="int32", epilogue="relu"),
    "matmul": programs.matmul(35, 37, 39, epilogue="bias+relu"),
    "rows": programs.softmax((11,), 67),
    "columns": programs.reduction((67, 35), (0,), kind="sum"),
    "whole": programs.reduction((67, 35), (0, 1), kind="sum"),
    "transpose": programs.transposed((64, 96), (1, 0)),
    "elementwise": programs.chain((13, 67)),
    "fallback": programs.statistics(309, 415),
}


SUMS = [("float64", ""), ("bfloat16", ""), ("float16", "float32"), ("int8", "int32"), ("uint8", "int32")]


def _matmul_in(dtype: str, out: str) -> Program:
    return programs.matmul(te.var("m"), 35, 67, dtype=dtype, out=out)


#: All of them, and every dtype that sums are of, with sizes to call them with.
SCHEDULED: dict[str, tuple[Program, dict[str, int]]] = {
    **LEAKY,
    **{f"large {name}": (program, {}) for name, program in LARGE.items()},
    **{f"for {name}": (program, {}) for name, program in FITTING.items()},
    **{f"matmul of {a} in {c or a}": (_matmul_in(a, c), {"m": 31}) for a, c in SUMS},
    "log softmax of a size of the call's": (programs.softmax((te.var("n"),), te.var("k"), log=True), {"n": 5, "k": 1}),
    "gather": (programs.gathered(11, te.var("n"), 37), {"n": 19}),
    "slice": (programs.sliced(te.var("n"), 21, 3), {"n": 19}),
}
