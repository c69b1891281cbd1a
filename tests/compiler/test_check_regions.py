"""Accesses that are certainly out of bounds are refused with place and numbers; all others are let through."""

from __future__ import annotations

import textwrap

import pytest

from compiler_service.build import build_variant
from compiler_service.passes.check_regions import CheckRegions
from crossfarm.errors import InvalidModule
from crossfarm.ir.module import IRModule
from crossfarm.target import Target
from crossfarm.wire.v1 import compiler_pb2
from tests.compiler.test_each_pass import function

SYMBOLIC = 'a: T.handle, B: T.Buffer((64,), "float32")'


def checked(body: str, params: str = 'A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")') -> IRModule:
    return CheckRegions().apply(function(body, params=params), Target("llvm"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("B[64] = A[0]", r"function 'f' writes 'B' out of bounds: index 0 is 64, but the shape is \(64\)"),
        ("B[0] = A[-1]", r"function 'f' reads 'A' out of bounds: index 0 is -1"),
        ("for i in range(65):\n    B[i] = A[0]", r"index 0 runs from 0 to 64, but the shape is \(64\)"),
        ("for i in range(64):\n    B[i] = A[i - 1]", r"reads 'A' out of bounds: index 0 runs from -1 to 62"),
        ("for i, j in T.grid(8, 9):\n    B[i * 8 + j] = A[0]", r"runs from 0 to 64"),
        ("for i in range(8):\n    if i < 4:\n        B[i + 64] = A[0]", r"writes 'B' out of bounds"),
        ("B[T.Ramp(60, 1, 8)] = T.Broadcast(T.float32(0), 8)", r"writes 'B' out of bounds: index 0 is 67"),
    ],
)
def test_a_certain_error_names_the_buffer_the_index_and_the_shape(body: str, message: str) -> None:
    with pytest.raises(InvalidModule, match=message):
        checked(body)


def test_the_block_is_named() -> None:
    body = """
        for i in range(64):
            with T.block("shift"):
                v = T.axis.spatial(64, i)
                B[v] = A[v + 1]
    """
    with pytest.raises(InvalidModule, match=r"block 'shift' of function 'f' reads 'A'.*runs from 1 to 64"):
        checked(body)


def test_an_index_past_a_symbolic_size_is_found() -> None:
    body = """
        n = T.int32()
        A = T.match_buffer(a, (n,), "float32")
        for i in range(n):
            A[i + 1] = T.float32(0)
    """
    with pytest.raises(InvalidModule, match=r"writes 'A' out of bounds: index 0 is i \+ 1, but the shape is \(n\)"):
        checked(body, params=SYMBOLIC)


@pytest.mark.parametrize(
    "body",
    [
        "for i in range(65):\n    if i < 64:\n        B[i] = A[i]",
        "for i in range(66):\n    if i >= 1 and i <= 64:\n        B[i - 1] = A[i - 1]",
        "for i in range(64):\n    B[i] = T.if_then_else(i > 0, A[i - 1], T.float32(0))",
        "for i in range(64):\n    B[i] = T.Select(i > 0, A[i - 1], T.float32(0))",
        "for i in range(80):\n    if i < 64 and A[i] > T.float32(0):\n        B[i] = A[i]",
        "for i in range(0):\n    B[100] = A[i]",
        "for i in range(8):\n    for j in range(i):\n        B[63 - i + j] = A[i]",
        "if T.Cast('int32', A[0]) == 5:\n    for i in range(65):\n        if i != 64:\n            B[i] = A[0]",
        "for i in range(64):\n    B[T.Cast('int32', A[i])] = A[i]",
        "for i, j in T.grid(5, 16):\n    if i * 16 + j < 64:\n        B[i * 16 + j] = A[i * 16 + j]",
        "for i in range(64):\n    B[(i * 7 + 80) % 64] = A[i]",
    ],
)
def test_what_is_guarded_or_undecided_passes(body: str) -> None:
    checked(body)


def test_a_where_guards_its_block() -> None:
    body = """
        for i, j in T.grid(5, 16):
            with T.block("copy"):
                v = T.axis.spatial(64, i * 16 + j)
                T.where(i * 16 + j < 64)
                B[v] = A[v]
    """
    checked(body)


def test_the_build_refuses_it_too() -> None:
    module = function(textwrap.dedent("B[64] = A[0]"))
    with pytest.raises(InvalidModule, match="out of bounds"):
        build_variant(module, Target("llvm"), compiler_pb2.BuildOptions())
