"""Programs that use each construct of the language, compiled and interpreted: the same results."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest

from crossfarm.errors import ProgramError
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.interpreter import run
from crossfarm.ir.verify import verify
from tests.compiler.native import Native

FLOATS = np.linspace(-3, 5, 64, dtype=np.float32)
A_B = 'A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")'


def source(params: str, body: str, noalias: bool = True) -> str:
    attrs = "    T.func_attr({'tir.noalias': True})\n" if noalias else ""
    head = f"from crossfarm.script import tir as T\n@T.prim_func\ndef f({params}):\n{attrs}"
    return head + textwrap.indent(textwrap.dedent(body), "    ")


def both(params: str, body: str, *args: Any, rtol: float = 0, noalias: bool = True) -> list[Any]:
    """Runs it compiled and interpreted on copies of ``args``; the compiled results, once they agree."""
    module = parse(source(params, body, noalias))
    verify(module)
    interpreted, compiled = ([a.copy() if isinstance(a, np.ndarray) else a for a in args] for _ in range(2))
    run(module, "f", interpreted)
    Native(module)("f", *compiled)
    for name, actual, expected in zip("ABCDEFG", compiled, interpreted):
        if isinstance(actual, np.ndarray):
            np.testing.assert_allclose(actual, expected, rtol=rtol, err_msg=name)
    return compiled


CASES = {
    "while": """
        i = T.alloc_buffer((1,), "int32")
        i[0] = 0
        while i[0] * i[0] < 50:
            B[i[0]] = A[i[0]]
            i[0] = i[0] + 1
    """,
    "let": """
        for i in range(64):
            x: T.float32 = A[i] * T.float32(2)
            y: T.float32 = x + T.float32(1)
            B[i] = x * y
    """,
    "if and else": """
        for i in range(64):
            if A[i] > T.float32(0):
                B[i] = A[i]
            elif i % 2 == 0:
                B[i] = T.float32(-1)
            else:
                B[i] = T.float32(0)
    """,
    "and guards the access after it": """
        for i in range(128):
            if i < 64 and A[i] > T.float32(0):
                B[i] = A[i]
    """,
    "select guards the access in it": """
        for i in range(64):
            B[i] = T.Select(i > 0, A[i - 1], T.float32(7))
    """,
    "nested blocks": """
        for io in range(4):
            with T.block("outer"):
                vo = T.axis.spatial(4, io)
                for ii in range(16):
                    with T.block("inner"):
                        vi = T.axis.spatial(16, ii)
                        B[vo * 16 + vi] = A[vo * 16 + vi] + T.float32(1)
    """,
    "temporary in a loop": """
        for i in range(8):
            with T.block("b"):
                v = T.axis.spatial(8, i)
                X = T.alloc_buffer((8,), "float32")
                for j in range(8):
                    X[j] = A[v * 8 + j]
                for j in range(8):
                    B[v * 8 + j] = X[7 - j]
    """,
    "large temporary": """
        X = T.alloc_buffer((64, 100), "float32")
        for i, j in T.grid(64, 100):
            X[i, j] = A[i] + T.Cast("float32", j)
        for i in range(64):
            B[i] = X[i, 99 - i] - X[63 - i, i]
    """,
    "unrolled with a let and a temporary": """
        for i in range(16):
            for u in T.unroll(4):
                with T.block("b"):
                    v = T.axis.spatial(64, i * 4 + u)
                    X = T.alloc_buffer((1,), "float32")
                    X[0] = A[v]
                    y: T.float32 = X[0] * T.float32(3)
                    B[v] = y
    """,
    "vectorized with everything": """
        for i in range(8):
            for v in T.vectorized(8):
                if i > 3:
                    B[i * 8 + v] = A[i * 8 + v] + T.Cast("float32", v)
                else:
                    if v % 2 == 0:
                        B[i * 8 + v] = T.max(A[i * 8 + 7 - v], T.float32(0))
                    else:
                        B[i * 8 + v] = T.if_then_else(i * 8 + v > 4, A[i * 8 + v - 4], T.float32(9))
    """,
    "vectorized reduction": """
        B[0] = T.float32(0)
        for v in T.vectorized(64):
            B[0] = B[0] + A[v]
    """,
    "vectorized recurrence": """
        B[0] = A[0]
        for v in T.vectorized(63):
            B[v + 1] = B[v] + A[v + 1]
    """,
    "vectorized around a serial loop": """
        for v in T.vectorized(16):
            B[v] = T.float32(0)
            for k in range(4):
                B[v] = B[v] + A[k * 16 + v]
    """,
    "gather and scatter": """
        for v in T.vectorized(32):
            B[63 - v * 2] = A[v] + A[v * 2]
    """,
    "explicit vectors": """
        for i in range(8):
            B[T.Ramp(i * 8, 1, 8)] = A[T.Ramp(i * 8, 1, 8)] * T.Broadcast(A[i], 8)
    """,
    "parallel": """
        for i in T.parallel(64):
            B[i] = A[i] + T.float32(1)
    """,
    "early return": """
        for i in range(64):
            if A[i] > T.float32(2):
                T.evaluate(T.ret(0))
            B[i] = A[i]
    """,
}


@pytest.mark.parametrize("name", CASES)
def test_a_construct_means_the_same_compiled(name: str) -> None:
    both(A_B, CASES[name], FLOATS, np.full(64, 5, np.float32))


@pytest.mark.parametrize("name", ["vectorized with everything", "vectorized recurrence", "gather and scatter"])
def test_without_the_promise_of_noalias_arguments_may_overlap(name: str) -> None:
    module = parse(source(A_B, CASES[name], noalias=False))
    memory = np.arange(80, dtype=np.float32)
    mine, theirs = memory.copy(), memory.copy()
    run(module, "f", [theirs[:64], theirs[3:67]])
    Native(module)("f", mine[:64], mine[3:67])
    np.testing.assert_array_equal(mine, theirs)


def test_scalar_arguments_of_every_dtype_arrive() -> None:
    params = (
        'A: T.Buffer((7,), "float64"), a: T.int8, b: T.uint16, c: T.int64, d: T.float32, e: T.float64, f: T.bool,'
        " g: T.float16"
    )
    body = "\n".join(f'A[{i}] = T.Cast("float64", {name})' for i, name in enumerate("abcdefg"))
    (out, *_) = both(params.replace("f: T.bool", "f_: T.bool"), body.replace(", f)", ", f_)"),
                     np.zeros(7), -5, 65535, -(2**40), 1.5, 2.25, True, 0.5)  # fmt: skip
    np.testing.assert_array_equal(out, [-5, 65535, -(2**40), 1.5, 2.25, 1, 0.5])


def test_symbolic_sizes_and_temporaries_of_symbolic_size() -> None:
    body = """
        n, m = T.int64(), T.int64()
        A = T.match_buffer(a, (n, m), "float32")
        B = T.match_buffer(b, (m, n), "float32")
        X = T.alloc_buffer((n, m), "float32")
        for i, j in T.grid(n, m):
            X[i, j] = A[i, j] * T.float32(2)
        for i, j in T.grid(m, n):
            B[i, j] = X[j, i] + T.Cast("float32", n)
    """
    for shape in ((5, 7), (1, 1), (0, 3), (70, 33)):
        a = np.random.default_rng(3).random(shape, np.float32)
        both("a: T.handle, b: T.handle", body, a, np.zeros(shape[::-1], np.float32))


def test_a_reduction_over_nothing_leaves_its_result_as_it_was() -> None:
    body = """
        n = T.int64()
        A = T.match_buffer(a, (n,), "float32")
        for i, k in T.grid(1, n):
            with T.block("sum"):
                v, r = T.axis.remap("SR", [i, k])
                with T.init():
                    B[v] = T.float32(0)
                B[v] = B[v] + A[r]
    """
    (_, b) = both('a: T.handle, B: T.Buffer((1,), "float32")', body, np.zeros(0, np.float32), np.ones(1, np.float32))
    assert b[0] == 1


def test_a_scalar_that_is_also_a_dimension_is_compared_with_it() -> None:
    params, body = (
        "a: T.handle, n: T.int32",
        'A = T.match_buffer(a, (n,), "float32")\nfor i in range(n):\n    A[i] = T.float32(1)',
    )
    native = Native(parse(source(params, body)))
    data = np.zeros(8, np.float32)
    native("f", data, 8)
    assert data.all()
    with pytest.raises(ProgramError, match="'n' of function 'f' differs"):
        native("f", data, 9)


def test_a_scalar_argument_may_size_a_temporary() -> None:
    body = """
        X = T.alloc_buffer((n * 2,), "float32")
        for i in range(n * 2):
            X[i] = A[i]
        for i in range(n * 2):
            B[i] = X[n * 2 - 1 - i]
    """
    for n in (3, 32, 0, -5):
        both(f"{A_B}, n: T.int32", body, FLOATS, np.zeros(64, np.float32), n)


def test_external_functions_are_called() -> None:
    body = """
        for i in range(64):
            B[i] = T.call_pure_extern("float32", "cosf", A[i]) + T.call_extern("float32", "fmaxf", A[i], T.float32(0))
        T.evaluate(T.call_extern("handle", "memcpy", T.address_of(B[32]), T.address_of(A[0]), 64))
        T.evaluate(T.call_extern("handle", "memset", T.address_of(B[60]), 0, 16))
    """
    both(A_B, body, FLOATS, np.zeros(64, np.float32), rtol=1e-6)


def test_a_failed_assertion_ends_the_call_with_its_message() -> None:
    native = Native(parse(source(A_B, 'assert A[0] > T.float32(0), "A must be positive"\nB[0] = A[0]')))
    native("f", np.ones(64, np.float32), np.zeros(64, np.float32))
    with pytest.raises(ProgramError, match="assertion failed in function 'f': A must be positive"):
        native("f", np.zeros(64, np.float32), np.zeros(64, np.float32))


def test_a_division_that_is_not_reached_does_not_fail() -> None:
    params = 'A: T.Buffer((8,), "int32"), B: T.Buffer((8,), "int32")'
    body = """
        for i in range(8):
            B[i] = T.Select(A[i] != 0, 100 // A[i], -1)
    """
    both(params, body, np.arange(8, dtype=np.int32) - 2, np.zeros(8, np.int32))


def test_deep_nests_of_blocks_and_deep_expressions_build_in_reasonable_time() -> None:
    lines, indent = [], ""
    for depth in range(24):
        previous = f"v{depth - 1}" if depth else "0"
        lines += [
            f'{indent}with T.block("b{depth}"):',
            f"{indent}    v{depth} = T.axis.opaque(64, {previous} + {previous} + 0)",
        ]
        indent += "    "
    chain = "i"
    for _ in range(30):
        chain = f"(7 // ({chain} + 1) & 63)"
    lines += [f"{indent}for i in range(64):", f"{indent}    B[v23] = A[{chain}]"]
    both(A_B, "\n".join(lines), FLOATS, np.zeros(64, np.float32))
