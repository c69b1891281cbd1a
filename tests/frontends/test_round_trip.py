"""One line for every operator and construct: it parses, prints, and reads back the same."""

from __future__ import annotations

import sys

import pytest

from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.intrinsics import EXTERN_ALLOWED, INTRINSICS
from crossfarm.ir.visitor import MAX_DEPTH
from tests.frontends.helpers import body_of, program, round_trips

#: In the dialect's own spelling, so that the printed line is the line itself.
CANONICAL = [
    # literals
    "A[i, j] = T.float32(0.10000000000000001)",
    "A[i, j] = T.float32(-3.4028234663852886e+38)",
    'A[i, j] = T.float32("inf")',
    'A[i, j] = T.float32("-inf")',
    'A[i, j] = T.float32("nan")',
    "A[i, j] = T.float32(-0.0)",
    "D[i] = T.float64(5e-324)",
    "H[i] = T.float16(65504.0)",
    "B[i, j] = -2147483648",
    "C[i] = T.int64(-9223372036854775808)",
    "C[i] = T.int64(9223372036854775807)",
    "U[i] = T.uint8(255)",
    "I8[i] = T.int8(-128)",
    "E[i] = T.bool(True)",
    "Z[()] = x",
    # arithmetic
    "A[i, j] = A[i, j] + x - x * x / x",
    "A[i, j] = x - (x - x) - (x + x)",
    "A[i, j] = (x + x) * x / (x * x)",
    "B[i, j] = i // j % n",
    "B[i, j] = (i + j) // (n % 3)",
    "B[i, j] = T.Div(i, j) + T.truncmod(i, j)",
    "B[i, j] = T.min(i, j) + T.max(i, n)",
    "C[i] = m + T.int64(1) - C[j]",
    "B[i, j] = i * -1",
    "B[i, j] = T.Add(1, 2) + T.FloorDiv(7, -2) - T.FloorMod(7, 2) * T.Mul(2, 3)",
    "B[i, j] = T.Sub(1, 2) + T.Div(7, -2) + T.truncmod(7, -2)",
    # bits
    "B[i, j] = i & j | n ^ i",
    "B[i, j] = i & (j | n) ^ i",
    "B[i, j] = i << 2 >> j",
    "B[i, j] = (i << 2) + 1 << (j >> n)",
    "B[i, j] = T.bitwise_not(i)",
    "B[i, j] = T.bitwise_and(1, 2) | T.shift_left(1, 3)",
    # comparisons and logic
    "E[i] = i < j and j <= n or i == 3",
    "E[i] = i > j and (p or i >= n)",
    "E[i] = (p or p) and (p and p)",
    "E[i] = not (i != j and p) and not p",
    "E[i] = (i < j) == (j < i)",
    "E[i] = T.EQ(1, 2) or T.bool(True) and p",
    # conversions and selections
    'A[i, j] = T.Cast("float32", i) + T.Cast("float32", C[i])',
    'A[i, j] = T.Cast("float32", T.Cast("float32", x))',
    'E[i] = T.Cast("bool", i)',
    'B[i, j] = T.reinterpret("int32", x)',
    "A[i, j] = T.Select(i < j, x, T.float32(0.0))",
    "A[i, j] = T.if_then_else(0 <= i and i < 8, A[i, j], T.float32(1.0))",
    "B[i, j] = T.if_then_else(p, 1, 2) + T.Select(p, 1, 2)",
    "A[i, j] = T.Let(v + v, where={v: x * x})",
    "A[i, j] = T.Let(T.Let(v + v_1, where={v_1: v * x}), where={v: x * x})",
    "E[i] = T.likely(i < n)",
    # vectors
    "A[i, T.Ramp(0, 1, 16)] = T.Broadcast(x, 16)",
    "A[i, T.Ramp(j * 4, 2, 4)] = A[i, T.Ramp(j, 1, 4)] * T.Broadcast(T.float32(2.0), 4)",
    "C[T.Ramp(T.int64(0), T.int64(1), 4)] = T.Broadcast(T.int64(1), 4)",
    "U[T.Ramp(0, 1, 4)] = T.Cast(\"uint8x4\", B[i, T.Ramp(0, 1, 4)])",
    # other functions
    'A[i, j] = T.call_extern("float32", "powf", x, A[i, j])',
    'A[i, j] = T.call_pure_extern("float32", "erfcf", x)',
    'T.call_extern("int32", "memcpy", T.address_of(A[0, 0]), T.address_of(A[i, j]), 16)',
    "T.assume(i < n)",
    "T.evaluate(x)",
    "T.evaluate(0)",
    "T.ret(0)",
    'T.tvm_storage_sync("shared")',
"B[i, j] = T.q_multiply_shift(i, j, 3, 4)",
    "B[i, j] = T.clz(i) + T.popcount(j) + T.clz(m)",
    "A[i, j] = T.abs(x) + T.fma(x, x, x) + T.pow(x, T.float32(2.0))",
    "E[i] = T.isnan(x) or T.isinf(x) or T.isfinite(x)",
    # statements
    "v: T.int32 = i * 2\nB[i, j] = v",
    "v: T.float32x4 = T.Broadcast(x, 4)\nA[i, T.Ramp(0, 1, 4)] = v",
    "with T.LetStmt(i * 2) as v:\n    B[i, j] = v\nB[i, j] = 0",
    "if i < j:\n    B[i, j] = 1",
    "if i < j:\n    B[i, j] = 1\nelif i == j:\n    B[i, j] = 2\nelse:\n    B[i, j] = 3",
    "if i < j:\n    pass\nelse:\n    B[i, j] = 3",
    "while B[i, j] < 10:\n    B[i, j] = B[i, j] + 1",
    'assert i < n, "i must be below \\"n\\"\\n"',
    'T.attr("", "pragma_unroll", 1)\nB[i, j] = 1',
    'with T.attr("B", "key", "value"):\n    B[i, j] = 1\nB[i, j] = 2',
    'X = T.allocate([16, n], "float32", "local")\nX[0, 0] = x\nA[i, j] = X[0, 0]',
    'with T.allocate([16], "float32", "shared", annotations={"a": [1, "b", None, True, 0.5]}) as X:\n    X[0] = x\n'
    "A[i, j] = x",
    'X = T.decl_buffer((16,), "float32", strides=(2,), align=16)\nX[0] = x',
    # loops
    "for k in range(4):\n    B[i, j] = k",
    "for k in range(2, 6):\n    B[i, j] = k",
    "for k in range(n, n + 4):\n    B[i, j] = k",
    "for k in range(T.int64(4)):\n    C[k] = k",
    "for k in T.parallel(4):\n    B[i, j] = k",
    "for k in T.vectorized(4):\n    B[i, j] = k",
    "for k in T.unroll(1, 4):\n    B[i, j] = k",
    'for k in T.thread_binding(4, thread="threadIdx.x"):\n    B[i, j] = k',
    'for k in T.serial(4, annotations={"pragma_unroll_explicit": 1, "software": {"a": [0, 1]}}):\n    B[i, j] = k',
    "for k, l in T.grid(4, n):\n    B[k, l] = k",
    "for k in range(4):\n    for l in range(k):\n        B[k, l] = k",
]  # fmt: skip


@pytest.mark.parametrize("line", CANONICAL)
def test_a_line_in_the_canonical_dialect_prints_as_it_is_written(line: str) -> None:
    printed = body_of(round_trips(parse(program(line))))
    assert printed == line.replace("0.10000000000000001", "0.1")


BLOCKS = [
    'with T.block("b"):\n    vi, vj = T.axis.remap("SR", [i, j])\n    T.reads(A[vi, vj])\n    T.writes(Z[()])\n'
    "    with T.init():\n        Z[()] = T.float32(0.0)\n    Z[()] = Z[()] + A[vi, vj]",
    'with T.block("b"):\n    v = T.axis.spatial(16, i)\n    w = T.axis.reduce((1, 15), j)\n    u = T.axis.scan(n, i)\n'
    "    t = T.axis.opaque(4, 0)\n    T.where(i * 4 + j < n)\n    T.reads()\n    T.writes(B[v, w:w + 2])\n"
    '    T.block_attr({"key": "value", "n": 3})\n    B[v, w] = u + t',
    'with T.block("outer"):\n    v = T.axis.spatial(16, i)\n    T.reads(A[v, 0:16])\n    T.writes(B[v, 2:6])\n'
    '    X = T.alloc_buffer((16,), "float32", scope="shared")\n    s = T.int32()\n    o = T.int32()\n'
    '    V = T.match_buffer(A[v, 0:16], (16,), "float32", strides=(s,), elem_offset=o, scope="global", align=128)\n'
    '    with T.block(""):\n        T.reads(V[0])\n        T.writes(X[0])\n        X[0] = V[0]\n'
    '    for k in range(4):\n        with T.block("inner"):\n            u = T.axis.spatial(4, k)\n'
    "            T.reads()\n            T.writes(B[v, u + 2])\n            B[v, u + 2] = 1",
]


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_print_as_they_are_written(block: str) -> None:
    assert body_of(round_trips(parse(program(block)))) == block


def _call(name: str) -> str:
    row = INTRINSICS[name]
    argument = {"float": "x", "int": "i", "number": "x", "any": "p"}[row.domain]
    return f"T.evaluate(T.{(row.script or (name,))[0]}({', '.join([argument] * row.arity)}))"


@pytest.mark.parametrize("name", [n for n, row in INTRINSICS.items() if row.arity >= 0 and n != "address_of"])
def test_every_intrinsic_round_trips(name: str) -> None:
    line = 'T.evaluate(T.reinterpret("int32", x))' if name == "reinterpret" else _call(name)
    round_trips(parse(program(line)))


@pytest.mark.parametrize("name", ["powf", "erf", "fma", "memset"])
def test_allowed_functions_of_the_c_library_round_trip(name: str) -> None:
    arguments = ["A.data", "0", "64"] if name == "memset" else ["x"] * EXTERN_ALLOWED[name]
    round_trips(parse(program(f'T.call_extern("float32", "{name}", {", ".join(arguments)})')))


def test_private_functions_attributes_and_module_attributes_round_trip() -> None:
    text = round_trips(
        parse(
            """
@I.ir_module
class Several:
    I.module_attrs({"version": 3, "names": ["a", "b"]})

    @T.prim_func(private=True)
    def first(A: T.Buffer((4,), "float32")):
        T.func_attr({"tir.noalias": True, "nested": {"x": 0.5, "inf": T.float32("inf")}})
        A[0] = T.float32(1)

    @T.prim_func
    def second(n: T.int32):
        T.evaluate(n)
"""
        )
    )
    assert "class Several:" in text
    assert "@T.prim_func(private=True)\n    def first" in text


def test_an_attribute_that_mentions_a_symbolic_size_round_trips() -> None:
    parsed = parse(
        """
@T.prim_func
def main(a: T.handle):
    n = T.int32()
    T.func_attr({"tir.noalias": True, "sizes": [n + 1]})
    A = T.match_buffer(a, (n,))
    A[0] = T.float32(1)
"""
    )
    text = round_trips(parsed)
    assert text.index("n = T.int32()") < text.index("n + 1")


def test_an_expression_as_deep_as_may_be_reads_and_prints_far_down_in_calls() -> None:
    line = "T.float32(1)"
    for _ in range(MAX_DEPTH - 8):
        line = f"T.if_then_else(i < j, {line}, x)"
    text = program(f"A[i, j] = {line}")

    def from_below(frames: int) -> str:
        return from_below(frames - 1) if frames else round_trips(parse(text))

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    try:
        assert "if_then_else" in from_below(300)
    finally:
        sys.setrecursionlimit(limit)


def test_an_empty_module_round_trips() -> None:
    round_trips(parse("@I.ir_module\nclass Empty:\n    pass"))


@pytest.mark.parametrize(
    "body",
    [
        'with T.block("root"):\n        A[0] = T.float32(1)',
        'with T.block("root"):\n        T.reads()\n        T.writes(A[0])\n        A[0] = T.float32(1)',
        'with T.block("root"):\n        T.block_attr({"a": 1})\n        X = T.alloc_buffer((4,), "float32")\n'
        "        A[0] = X[0]",
        'with T.block("other"):\n        A[0] = T.float32(1)',
        'X = T.alloc_buffer((4,), "float32")\n    A[0] = X[0]',
        'with T.block("root"):\n        with T.block("root"):\n            A[0] = T.float32(1)',
    ],
)
def test_every_form_of_the_root_block_round_trips(body: str) -> None:
    round_trips(parse(f'@T.prim_func\ndef main(A: T.Buffer((4,), "float32")):\n    {body}'))


def test_symbolic_strided_offset_and_scalar_parameters_round_trip() -> None:
    text = round_trips(
        parse(
            """
@T.prim_func
def main(a: T.handle, k: T.int32, b: T.handle, C: T.Buffer((2,), "int8"), d: T.handle):
    n = T.int64()
    s, o = T.int32(), T.int32()
    A = T.match_buffer(a, (n, 4), "float32", strides=(s, 1), elem_offset=o, align=128)
    B = T.match_buffer(b, (n * T.int64(2), k), "float16", scope="global")
    D = T.match_buffer(d, (), "bool")
    for i in range(n):
        A[i, 0] = T.float32(1)
"""
        )
    )
    assert "var_A: T.handle, k: T.int32, var_B: T.handle" in text
