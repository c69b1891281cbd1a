"""Fetching what the next turn of a loop reads: the pass, what it leaves alone, and that results stay what they are."""

from __future__ import annotations

from operator import add, floordiv, mod, mul, sub

import numpy as np
import pytest

from compiler_service.build import build_variant
from compiler_service.passes.fetch_next import FetchNext
from crossfarm.errors import InvalidModule
from crossfarm.ir import interpreter
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Binary, Call, Cast, Expr, IntImm, Var
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import For
from crossfarm.ir.verify import verify
from crossfarm.ir.visitor import children
from crossfarm.target import Target
from crossfarm.wire.v1 import artifact_pb2, compiler_pb2
from tests.compiler.native import Native
from tests.compiler.test_each_pass import check, function, lowered

LLVM = Target("llvm")
ROWS = 'A: T.Buffer((8, 64), "float32"), B: T.Buffer((8, 64), "float32")'


def copied(rows: int, columns: int, dtype: str, lanes: int) -> IRModule:
    shape = f'T.Buffer(({rows}, {columns}), "{dtype}")'
    return lowered(
        f"""
        for i in range({rows}):
            for j in T.serial({columns // lanes}, annotations={{"fetch_next": {{"A": 2}}}}):
                for k in range({lanes}):
                    B[i, j * {lanes} + k] = A[i, j * {lanes} + k]
        """,
        params=f"A: {shape}, B: {shape}",
    )


def test_each_turn_fetches_its_share_of_the_lines_of_the_next_turn_around() -> None:
    check(
        FetchNext(),
        lowered(
            """
            for i in range(8):
                for j in T.serial(4, annotations={"fetch_next": {"A": 1}}):
                    for k in T.vectorized(16):
                        B[i, j * 16 + k] = A[i, j * 16 + k]
            """,
            params=ROWS,
        ),
        function(
            """
            for i in range(8):
                for j in range(4):
                    for line in T.unroll(T.int64(1)):
                        T.prefetch(T.address_of(A[
                            T.Cast("int64", T.min(i + 1, 7)),
                            (T.Cast("int64", j) + line) % T.int64(4) * T.int64(16),
                        ]), 1)
                    for k in T.vectorized(16):
                        B[i, j * 16 + k] = A[i, j * 16 + k]
            """,
            params=ROWS,
        ),
    )


@pytest.mark.parametrize(("rows", "columns", "dtype", "lanes"), [
    (4, 64, "float32", 16), (4, 48, "float32", 4), (3, 100, "float32", 4), (5, 96, "int8", 8), (2, 40, "float64", 8),
    (1, 64, "float32", 64),
])  # fmt: skip
def test_all_lines_of_the_next_row_are_fetched_in_order_and_nothing_outside(
    rows: int, columns: int, dtype: str, lanes: int
) -> None:
    module = FetchNext().apply(copied(rows, columns, dtype, lanes), LLVM)
    verify(module)
    per_line = 64 // np.dtype(dtype).itemsize
    for row in range(rows):
        fetches = [(at, column) for turn, at, column in fetched_places(module) if turn == row]
        assert {at for at, _ in fetches} == {min(row + 1, rows - 1)}
        ordered = [column for _, column in fetches]
        assert ordered == sorted(ordered)
        assert {column // per_line for column in ordered} == {column // per_line for column in range(columns)}
        assert max(ordered) < columns


def test_blocks_of_rows_are_fetched_along_memory() -> None:
    module = lowered(
        """
        for f in range(8):
            for j in T.serial(2, annotations={"fetch_next": {"A": 1}}):
                for i in range(4):
                    for k in T.vectorized(16):
                        B[f % 2 * 32 + j * 16 + k, f // 2 * 4 + i] = A[f // 2 * 4 + i, f % 2 * 32 + j * 16 + k]
        """,
        params='A: T.Buffer((16, 64), "float32"), B: T.Buffer((64, 16), "float32")',
    )
    places = fetched_places(FetchNext().apply(module, LLVM))
    block = [(row, column) for turn, row, column in places if turn == 2]
    assert block == [(row, column) for row in range(4, 8) for column in (32, 48)]
    at_the_end_of_a_band = [(row, column) for turn, row, column in places if turn == 1]
    assert at_the_end_of_a_band == [(row, column) for row in range(4, 8) for column in (0, 16)]


@pytest.mark.parametrize("body", [
    "for j in T.serial(64, annotations={'fetch_next': {'A': 1}}):\n    B[0, j] = A[0, j]",
    "for i in range(8):\n    for j in T.serial(64, annotations={'fetch_next': {'C': 1}}):\n        B[i, j] = A[i, j]",
    "for i in range(8):\n    for j in T.serial(n, annotations={'fetch_next': {'A': 1}}):\n        B[i, j] = A[i, j]",
    "for i in range(8):\n    for j in T.serial(64, annotations={'fetch_next': {'A': 1}}):\n"
    "        B[i, j] = A[i, T.Cast('int32', B[i, j])]",
], ids=["no loop around", "no such buffer", "a size of the call's", "places that data choose"])  # fmt: skip
def test_what_cannot_be_told_is_not_fetched(body: str) -> None:
    module = FetchNext().apply(lowered(body, params=f"{ROWS}, n: T.int32"), LLVM)
    assert "prefetch" not in module.script()
    assert "fetch_next" not in module.script()


def test_compiled_code_fetches_and_gives_the_same() -> None:
    module = copied(8, 64, "float32", 16)
    data = np.random.default_rng(0).standard_normal((8, 64), np.float32)
    library = Native(FetchNext().apply(module, LLVM))
    result = np.zeros_like(data)
    library("f", data, result)
    np.testing.assert_array_equal(result, data)
    interpreted = np.zeros_like(data)
    interpreter.run(FetchNext().apply(module, LLVM), "f", [data, interpreted])
    np.testing.assert_array_equal(interpreted, data)


@pytest.mark.parametrize("argument", ["A[0, 0], 1", "T.address_of(A[0, 0]), 3", "T.address_of(A[0, 0]), n"])
def test_a_prefetch_takes_an_address_and_a_level(argument: str) -> None:
    with pytest.raises(InvalidModule, match="prefetch takes the address of an element and the level of a cache"):
        verify(function(f"T.prefetch({argument})", params=f"{ROWS}, n: T.int32"))


OPERATORS = {"add": add, "sub": sub, "mul": mul, "floordiv": floordiv, "floormod": mod, "min": min}


def value_of(expr: Expr, values: dict[Var, int]) -> int:
    match expr:
        case IntImm():
            return expr.value
        case Var():
            return values[expr]
        case Cast():
            return value_of(expr.value, values)
        case Binary():
            return int(OPERATORS[expr.op](value_of(expr.a, values), value_of(expr.b, values)))
    raise AssertionError(expr)


def fetched_places(module: IRModule) -> list[tuple[int, int, int]]:
    """(value of the outermost loop, row, column) of each prefetch, in the order in which they run."""
    found: list[tuple[int, int, int]] = []

    def run(node: object, values: dict[Var, int]) -> None:
        if isinstance(node, For):
            for step in range(const_int(node.extent) or 0):
                run(node.body, {**values, node.var: step})
        elif isinstance(node, Call) and node.op == "prefetch":
            load = node.args[0].args[0]
            row, column = (value_of(index, values) for index in load.indices)
            found.append((next(iter(values.values())), row, column))
        else:
            for child in children(node):
                run(child, values)

    for func in module.functions.values():
        run(func.body, {})
    return found


@pytest.mark.parametrize("target", ["llvm", "opencl", "vulkan", "cuda", "raspberry-pi/4b"])
def test_a_prefetch_in_a_program_is_a_hint_everywhere(target: str) -> None:
    module = function(
        """
        for i, j in T.grid(8, 64):
            T.prefetch(T.address_of(A[T.min(i + 1, 7), j]), 2)
            B[i, j] = A[i, j] + T.float32(1)
        """,
        params=ROWS,
    )
    verify(module)
    built = build_variant(module, Target(target), compiler_pb2.BuildOptions())
    (entry,) = built.variant.entry_points
    assert [parameter.role for parameter in entry.parameters] == [
        artifact_pb2.Parameter.IN,
        artifact_pb2.Parameter.OUT,
    ]
