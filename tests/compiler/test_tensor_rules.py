"""Rules for rows, columns, maps and transposes: which programs get which, and results right for every shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compiler_service.schedules import choose_schedules
from crossfarm import te
from crossfarm.ir import dtype as dt
from crossfarm.ir.module import IRModule
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.structural import structural_equal
from crossfarm.target import Target
from tests.compiler.native import Native

Array = np.ndarray[Any, Any]
Shape = tuple[Any, ...]


def softmax(shape: Shape, dtype: str = "float32") -> list[te.Tensor]:
    x = te.placeholder(shape, dtype, "X")
    k, k2 = te.reduce_axis((0, x.shape[1]), "k"), te.reduce_axis((0, x.shape[1]), "k")
    largest = te.compute(x.shape[:1], lambda i: te.max(x[i, k], axis=k), name="largest")
    power = te.compute(x.shape, lambda i, j: te.exp(x[i, j] - largest[i]), name="power")
    total = te.compute(x.shape[:1], lambda i: te.sum(power[i, k2], axis=k2), name="total")
    return [x, te.compute(x.shape, lambda i, j: power[i, j] / total[i], name="Y")]


def softmax_of(x: Array) -> Array:
    power = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    return np.asarray(power / power.sum(1, keepdims=True))


def layer_norm(shape: Shape) -> list[te.Tensor]:
    x = te.placeholder(shape, name="X")
    size = te.cast(te.Value(x.shape[2]), "float32")
    k, k2 = te.reduce_axis((0, x.shape[2]), "k"), te.reduce_axis((0, x.shape[2]), "k")
    mean = te.compute(x.shape[:2], lambda a, b: te.sum(x[a, b, k], axis=k), name="total")
    centered = te.compute(x.shape, lambda a, b, c: x[a, b, c] - mean[a, b] / size, name="centered")
    squares = te.compute(x.shape[:2], lambda a, b: te.sum(centered[a, b, k2] * centered[a, b, k2], axis=k2), name="sq")
    return [x, te.compute(x.shape, lambda a, b, c: centered[a, b, c] * te.rsqrt(squares[a, b] / size + 1e-3), name="Y")]


def layer_norm_of(x: Array) -> Array:
    return np.asarray((x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-3))


def module_of(tensors: list[te.Tensor]) -> IRModule:
    return IRModule({"main": te.create_prim_func(tensors)})


def rules_of(module: IRModule, target: Target | None = None) -> list[str]:
    return [choice.rule for choice in choose_schedules(module, (target or Target("llvm")).resolved()).choices]


def filled(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0, skew: int = 0) -> Array:
    """Random values, ``skew`` elements away from where an allocation begins."""
    values = np.random.default_rng(seed).standard_normal(shape) * 3
    array = np.empty(int(np.prod(shape)) + skew, dt.to_numpy(dtype))[skew:].reshape(shape)
    array[...] = values
    return array


def check(tensors: list[te.Tensor], inputs: list[Array], want: Array, target: str = "llvm", skew: int = 0) -> None:
    out = filled(want.shape, tensors[-1].dtype, skew=skew)
    Native(module_of(tensors), target)("main", *inputs, out)
    np.testing.assert_allclose(out.astype(np.float64), want.astype(np.float64), rtol=2e-4, atol=2e-5)


SIZES = st.integers(1, 150)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 9), columns=SIZES, symbolic=st.booleans())
@example(rows=3, columns=64, symbolic=False)
@example(rows=300, columns=1024, symbolic=False)
@example(rows=300, columns=1023, symbolic=True)
def test_softmax_is_right_for_every_shape(rows: int, columns: int, symbolic: bool) -> None:
    x = filled((rows, columns))
    shape = (te.var("n"), te.var("m")) if symbolic else x.shape
    assert rules_of(module_of(softmax(shape))) == ["rows"]
    check(softmax(shape), [x], softmax_of(x))


@settings(max_examples=10, deadline=None)
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 4), SIZES), symbolic=st.booleans())
@example(shape=(2, 3, 256), symbolic=False)
def test_layer_norm_is_right_for_every_shape(shape: tuple[int, int, int], symbolic: bool) -> None:
    x = filled(shape)
    tensors = layer_norm((te.var("a"), te.var("b"), te.var("c")) if symbolic else shape)
    assert rules_of(module_of(tensors)) == ["rows"]
    check(tensors, [x], layer_norm_of(x))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), SIZES, st.integers(1, 70)),
    axes=st.sampled_from([(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)]),
    kind=st.sampled_from(["sum", "max", "min"]),
    dtype=st.sampled_from(["float32", "int32", "float64", "int8"]),
)
@example(shape=(4, 100, 128), axes=(0, 1, 2), kind="sum", dtype="float32")
@example(shape=(64, 128, 64), axes=(0, 1, 2), kind="sum", dtype="float32")
@example(shape=(4, 100, 128), axes=(1,), kind="sum", dtype="float32")
def test_reductions_over_any_axes_are_right(
    shape: tuple[int, ...], axes: tuple[int, ...], kind: str, dtype: str
) -> None:
    a = te.placeholder(shape, dtype, "A")
    over = {axis: te.reduce_axis((0, shape[axis]), f"k{axis}") for axis in axes}
    kept = tuple(n for axis, n in enumerate(shape) if axis not in over)

    def element(*indices: Any) -> Any:
        rest = iter(indices)
        return getattr(te, kind)(
            a[tuple(over[k] if k in over else next(rest) for k in range(3))], axis=list(over.values())
        )

    x = filled(shape, dtype)
    check(
        [a, te.compute(kept, element, name="B")],
        [x],
        getattr(np, kind)(x, axis=axes, **({"dtype": x.dtype} if kind == "sum" else {})),
    )


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(SIZES, SIZES),
    dtype=st.sampled_from(["float32", "float16", "int8", "float64"]),
    skew=st.integers(0, 3),
    symbolic=st.booleans(),
)
def test_chains_of_maps_are_one_pass_and_right(shape: tuple[int, int], dtype: str, skew: int, symbolic: bool) -> None:
    sizes = (te.var("n"), te.var("m")) if symbolic else shape
    a, bias = te.placeholder(sizes, dtype, "A"), te.placeholder(sizes[1:], dtype, "bias")
    b = te.compute(a.shape, lambda i, j: a[i, j] + bias[j], name="B")
    c = te.compute(a.shape, lambda i, j: te.maximum(b[i, j], 0), name="C")
    module = module_of([a, bias, c])
    assert rules_of(module) == ["elementwise"]
    assert "alloc_buffer" not in choose_schedules(module, Target("llvm").resolved()).module.script()
    x, y = filled(shape, dtype, skew=skew), filled(shape[1:], dtype, 1)
    with np.errstate(all="ignore"):
        want = np.maximum(x + y, 0)
    out = np.empty_like(want)
    Native(module)("main", x, y, out)
    np.testing.assert_array_equal(out, want)


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.tuples(*[st.sampled_from([1, 3, 8, 16, 32, 33, 48])] * 3),
    order=st.permutations([0, 1, 2]),
    dtype=st.sampled_from(["float32", "int8", "float64", "float16"]),
)
@example(sizes=(2, 64, 96), order=[0, 2, 1], dtype="float32")
@example(sizes=(64, 2, 64), order=[2, 1, 0], dtype="float32")
def test_permuted_dimensions_are_right(sizes: tuple[int, ...], order: list[int], dtype: str) -> None:
    a = te.placeholder(sizes, dtype, "A")
    shape = tuple(sizes[k] for k in order)
    b = te.compute(shape, lambda *i: a[tuple(i[order.index(k)] for k in range(3))], name="B")
    x = filled(sizes, dtype)
    out = np.empty(shape, x.dtype)
    Native(module_of([a, b]))("main", x, out)
    np.testing.assert_array_equal(out, x.transpose(order))


@pytest.mark.parametrize("skew", [0, 1, 4, 16])
@pytest.mark.parametrize("name", ["map", "transpose", "softmax"])
def test_large_results_are_right_wherever_they_begin(name: str, skew: int) -> None:
    rows, columns = 2112, 2048
    x = filled((rows, columns), skew=skew)
    a = te.placeholder(x.shape, name="A")
    tensors, want = {
        "map": ([a, te.compute(x.shape, lambda i, j: a[i, j] * 2, name="B")], x * 2),
        "transpose": ([a, te.compute(x.T.shape, lambda i, j: a[j, i], name="B")], x.T),
        "softmax": (softmax(x.shape), softmax_of(x)),
    }[name]
    module = module_of(tensors)
    target = Target("x86-64-v3")
    assert "stream_stores" in choose_schedules(module, target.resolved()).module.script()
    check(tensors, [x], np.ascontiguousarray(want), "x86-64-v3", skew)


def test_rows_are_shared_among_threads_only_where_that_is_worth_it() -> None:
    def text(rows: int) -> str:
        return choose_schedules(module_of(softmax((rows, 64))), Target("llvm").resolved()).module.script()

    assert "T.parallel" not in text(4)
    assert "T.parallel" in text(4096)


def test_a_window_along_the_row_is_no_row_of_its_own() -> None:
    a = te.placeholder((8, 66), name="A")
    k = te.reduce_axis((0, 3), "k")
    pooled = te.compute((8, 64), lambda i, j: te.max(a[i, j + k], axis=k), name="pooled")
    assert rules_of(module_of([a, pooled])) == ["pooling"]
    x = filled((8, 66))
    check([a, pooled], [x], np.maximum(np.maximum(x[:, :-2], x[:, 1:-1]), x[:, 2:]))


def test_a_gather_is_a_map() -> None:
    a, index = te.placeholder((40, 33), name="A"), te.placeholder((17,), "int32", "I")
    taken = te.compute((17, 33), lambda i, j: a[index[i], j], name="T")
    assert rules_of(module_of([a, index, taken])) == ["elementwise"]
    x, at = filled((40, 33)), np.random.default_rng(0).integers(0, 40, 17).astype(np.int32)
    check([a, index, taken], [x, at], x[at])


@pytest.mark.parametrize("make", [softmax, lambda shape: layer_norm((2, *shape))], ids=["softmax", "layer norm"])
def test_what_a_rule_does_replays(make: Callable[[Shape], list[te.Tensor]]) -> None:
    module = module_of(make((64, 4096)))
    chosen = choose_schedules(module, Target("llvm").resolved())
    again = Schedule(module)
    chosen.traces["main"].apply_to(again)
    assert structural_equal(again.module, chosen.module)
