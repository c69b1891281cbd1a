"""Graph functions for tests of passes: what they are made of, what they compute, and random ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from compiler_service.passes.base import Pass
from compiler_service.passes.graph.lift_constants import texts_of
from crossfarm.ir.expr import IntImm
from crossfarm.ir.graph import dims, visit
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import Function, FunctionCall, GraphExpr, OperatorCall
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.interpreter.graph import evaluate
from crossfarm.ir.module import IRModule
from crossfarm.ir.verify import verify
from crossfarm.ir.visitor import substitute
from crossfarm.target import Target

Array = np.ndarray[Any, np.dtype[Any]]


def tensor(*shape: Any, dtype: str = "float32") -> TensorType:
    return TensorType(dims.dims(shape), dtype)


def weights(*shape: int, seed: int = 0) -> Array:
    """Numbers around 0, and around 1 for one dimension: what multiplies and divides well."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(0.5, 1.5, shape) if len(shape) == 1 else rng.standard_normal(shape)).astype("float32")


def inputs_of(function: Function, sizes: int = 3) -> list[Array]:
    """Something to call a function with; symbolic sizes are all ``sizes``."""
    rng = np.random.default_rng(1)
    found = []
    for param in function.params:
        assert isinstance(param.type, TensorType)
        known: dict[Any, Any] = {size: IntImm(sizes, "int64") for size in visit.sizes(param.type)}
        shape = dims.constants(dims.dim(substitute(d, known)) for d in param.type.shape)
        assert shape is not None
        found.append(rng.standard_normal(shape).astype(param.type.dtype))
    return found


def applied(module: IRModule | Function, *steps: Pass) -> IRModule:
    """The module after passes, verified after each."""
    found = IRModule({"main": module}) if isinstance(module, Function) else module
    verify(found)
    for step in steps:
        found = step.apply(found, Target("llvm"))
        verify(found)
    return found


def operators_of(function: Any) -> list[str]:
    """What a function calls, in order."""
    values = [b.value for b in visit.bindings(function.body)]
    return [v.op if isinstance(v, OperatorCall) else v.function if isinstance(v, FunctionCall) else "" for v in values]


def results(module: IRModule, inputs: Sequence[Array], contents: IRModule | None = None) -> list[Array]:
    """What ``main`` gives, with its constants found in ``contents`` as whoever loads an artifact finds them."""
    known = {c.data.digest: c.data.array for c in visit.constants(contents)} if contents else {}

    def flat(value: Any) -> list[Array]:
        return [a for v in value for a in flat(v)] if isinstance(value, tuple) else [np.asarray(value)]

    def called(name: str, given: Sequence[Array]) -> list[Array]:
        function = module[name]
        assert isinstance(function, Function)
        constants = []
        texts = texts_of(function)
        for text, param in zip(texts, function.params[len(function.params) - len(texts) :]):
            where, _, what = text.partition(":")
            assert isinstance(param.type, TensorType)
            array = known[what] if where == "sha256" else called(where, [])[int(what)]
            constants.append(array.reshape(dims.constants(param.type.shape)))
        return flat(evaluate(module, name, [*given, *constants]))

    return called("main", inputs)


def assert_same(before: IRModule, after: IRModule, *, exact: bool = False, rtol: float = 1e-5) -> None:
    """That ``main`` computes the same. ``exact``: to the bit."""
    main = before["main"]
    assert isinstance(main, Function)
    inputs = inputs_of(main)
    for expected, found in zip(results(before, inputs), results(after, inputs, before), strict=True):
        assert (expected.dtype, expected.shape) == (found.dtype, found.shape)
        if exact:
            assert hashlib.sha256(expected.tobytes()).digest() == hashlib.sha256(found.tobytes()).digest()
        else:
            np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-5)


_UNARY = ("nn.relu", "sigmoid", "tanh", "negative", "abs", "nn.gelu", "nn.silu")
_BINARY = ("add", "multiply", "subtract", "maximum")


@st.composite
def random_graphs(draw: st.DrawFn) -> Function:
    """Functions of two inputs and some weights: maps, products, reductions, other shapes, in any order.

    Results may be inputs, constants, one value twice. All values are matrices of 4 rows, by 4 or 1 columns.
    """
    b = Builder()
    values: list[GraphExpr] = [b.parameter("x", tensor(4, 4)), b.parameter("y", tensor(4, 1))]
    square: list[GraphExpr] = [values[0]]
    values += [
        b.constant(weights(4, seed=2), "vector"),
        b.constant(weights(4, 4, seed=3), "matrix"),
        b.constant(np.float32(draw(st.sampled_from((-0.0, 0.0, 1.0, 2.0))))),
    ]
    square.append(values[3])
    for _ in range(draw(st.integers(1, 9))):
        a, c = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        s, t = draw(st.sampled_from(square)), draw(st.sampled_from(square))
        match draw(st.sampled_from(("unary", "binary", "binary", "matmul", "softmax", "sum", "reshape", "permute"))):
            case "unary":
                new = b.op(draw(st.sampled_from(_UNARY)), a)
            case "binary":
                new = b.op(draw(st.sampled_from(_BINARY)), a, c)
            case "matmul":
                new = b.op("matmul", s, t)
            case "softmax":
                new = b.op("nn.softmax", s)
            case "sum":
                new = b.op("sum", s, axis=(1,), keepdims=True)
            case "reshape":
                new = b.op("reshape", b.op("reshape", s, shape=(2, 8)), shape=(4, 4))
            case _:
                new = b.op("permute_dims", s)
        values.append(new)
        if isinstance(new.type, TensorType) and dims.constants(new.type.shape) == (4, 4):
            square.append(new)
    results = [draw(st.sampled_from(values)) for _ in range(draw(st.integers(1, 3)))]
    return b.function([values[-1], *results])
