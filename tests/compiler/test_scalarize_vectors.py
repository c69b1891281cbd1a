"""Vector code taken apart: no vectors are left, and it means the same."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from compiler_service.passes.lower_blocks import LowerBlocks
from compiler_service.passes.scalarize_vectors import ScalarizeVectors, has_vectors
from compiler_service.passes.vectorize_loops import VectorizeLoops
from crossfarm.errors import BuildFailed
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir import dtype as dt
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.verify import verify
from crossfarm.target import Target
from tests.compiler.dots import LANES, SIGNS, dot_of, dot_program, factors
from tests.compiler.operators import assert_same_bits, edges, programs_of
from tests.compiler.programs import module, outputs

VULKAN = Target("vulkan")


def scalar(built: IRModule, **options: int) -> IRModule:
    """The module in lowered form, its vectors taken apart, verified."""
    vectors = VectorizeLoops().apply(LowerBlocks().apply(built, VULKAN), VULKAN)
    result = ScalarizeVectors(**options).apply(vectors, VULKAN)
    verify(result)
    for func in result.functions.values():
        assert not has_vectors(func.body)
    return result


def function(params: str, body: str) -> IRModule:
    head = f"from crossfarm.script import tir as T\n@T.prim_func\ndef f({params}):\n"
    head += "    T.func_attr({'tir.noalias': True})\n"
    return parse(head + textwrap.indent(textwrap.dedent(body), "    "))


@pytest.mark.parametrize("max_unrolled", [0, 16])
@pytest.mark.parametrize("group", ["operators", "divisions", "casts"])
def test_operators_on_lanes_mean_what_they_did(group: str, max_unrolled: int) -> None:
    programs = {name: made for name, made in programs_of(group).items() if name.endswith("_vectorized")}
    built = module(**{name: func for name, (func, _) in programs.items()})
    scalars = scalar(built, max_unrolled=max_unrolled)
    for name, (func, dtypes) in programs.items():
        values = edges(dtypes[0])
        if group == "divisions":
            values = values[values != 0]
        inputs = [np.resize(values, 8), np.resize(values[::-1], 8)][: len(dtypes)]
        expected, actual = outputs(func, len(dtypes), 8), outputs(func, len(dtypes), 8)
        run(built, name, [*inputs, *expected])
        run(scalars, name, [*inputs, *actual])
        for param, a, e in zip(func.params[len(dtypes) :], actual, expected):
            with np.errstate(all="ignore"):
                assert_same_bits(a, e, f"{name}: {param.name}", inputs)


@pytest.mark.parametrize("lanes", LANES)
def test_dot_products_are_sums_of_products(lanes: int) -> None:
    scalars = scalar(dot_program(lanes))
    for signs in SIGNS:
        a, b, c = factors(signs, lanes)
        expected = dot_of(a, b, c)
        run(scalars, signs, [a, b, c])
        np.testing.assert_array_equal(c, expected, err_msg=signs)


#: What each does to A (and I) of 8 elements: the stores of some lanes would change what others load.
HAZARDS = {
    "reversed": "A[T.Ramp(0, 1, 8)] = A[T.Ramp(7, -1, 8)]",
    "shifted": "A[T.Ramp(0, 1, 7)] = A[T.Ramp(1, 1, 7)] + A[T.Ramp(0, 1, 7)]",
    "own_index": "I[I[T.Ramp(0, 1, 8)]] = T.Ramp(7, -1, 8)",
    "gathered": "A[T.Ramp(0, 1, 8)] = A[I[T.Ramp(0, 1, 8)]]",
    "same_element": "A[T.Broadcast(3, 8)] = A[T.Ramp(0, 1, 8)]",
}


@pytest.mark.parametrize("max_unrolled", [4, 16])
@pytest.mark.parametrize("name", HAZARDS)
def test_all_lanes_are_computed_before_one_is_stored(name: str, max_unrolled: int) -> None:
    built = function('A: T.Buffer((8,), "float32"), I: T.Buffer((8,), "int32")', HAZARDS[name])
    arrays = [np.arange(8, dtype=np.float32), np.array([3, 1, 4, 0, 5, 2, 7, 6], np.int32)]
    expected, actual = [a.copy() for a in arrays], [a.copy() for a in arrays]
    run(built, "f", expected)
    if name == "own_index" and max_unrolled == 4:
        with pytest.raises(BuildFailed, match="store of 8 lanes into 'I' takes its places from memory"):
            scalar(built, max_unrolled=max_unrolled)
        return
    run(scalar(built, max_unrolled=max_unrolled), "f", actual)
    for a, e in zip(actual, expected):
        np.testing.assert_array_equal(a, e)


def test_buffers_that_may_be_the_same_memory_are_a_hazard() -> None:
    built = parse("""
from crossfarm.script import tir as T
@T.prim_func
def f(A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")):
    B[T.Ramp(0, 1, 8)] = A[T.Ramp(7, -1, 8)]
""")
    array = np.arange(8, dtype=np.float32)
    run(scalar(built), "f", [array, array])
    np.testing.assert_array_equal(array, np.arange(8)[::-1])


def test_bound_vectors_and_choices_by_scalars() -> None:
    built = function(
        'A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32"), n: T.int32',
        """
        for i in range(4):
            x = A[T.Ramp(i * 16, 1, 16)]
            y = x * x + T.Broadcast(T.float32(0.5), 16)
            A[T.Ramp(i * 16, 1, 16)] = y
            B[T.Ramp(i * 16, 1, 16)] = T.if_then_else(i < n, T.Select(x < y, x, y), T.Broadcast(A[i], 16))
        """,
    )
    values = np.random.default_rng(3).normal(size=64).astype(np.float32)
    expected, actual = [values.copy(), np.zeros(64, np.float32)], [values.copy(), np.zeros(64, np.float32)]
    run(built, "f", [*expected, 2])
    run(scalar(built), "f", [*actual, 2])
    for a, e in zip(actual, expected):
        np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("int8x4", "int32"),
        ("int32", "uint8x4"),
        ("uint16x4", "int32x2"),
        ("int64x2", "int16x8"),
        ("float32x2", "int64"),
    ],
)
def test_lanes_are_cut_and_joined_lowest_first(source: str, target: str) -> None:
    (a, n), (b, m) = dt.split(source), dt.split(target)
    load = f"A[T.Ramp(0, 1, {n})]" if n > 1 else "A[0]"
    place = f"B[T.Ramp(0, 1, {m})]" if m > 1 else "B[0]"
    built = function(
        f'A: T.Buffer(({n},), "{a}"), B: T.Buffer(({m},), "{b}")', f'{place} = T.reinterpret("{target}", {load})'
    )
    bits = np.arange(0x81, 0x81 + n * np.dtype(a).itemsize, dtype=np.uint8)
    result = np.zeros(m, b)
    run(scalar(built), "f", [bits.view(a), result])
    np.testing.assert_array_equal(result.view(np.uint8), bits)
