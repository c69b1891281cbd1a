"""Graph functions that tests of the IR share."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossfarm.ir.expr import Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import CallTIR, Conditional, FunctionCall, GraphExpr, Seq
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.module import IRModule
from tests.ir.programs import buffer, f32, load, loop, op, store


def tensor(*shape: dims.Dim, dtype: str = "float32") -> TensorType:
    return TensorType(dims.dims(shape), dtype)


def weights(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray[Any, Any]:
    """Small whole numbers, so that sums are exact."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def doubled() -> PrimFunc:
    """``B[i] = A[i] * 2`` of any length."""
    n, i = Var("n", "int64"), Var("i", "int64")
    a, b = buffer("A", n), buffer("B", n)
    return PrimFunc((a, b), loop(i, n, store(b, op("mul", load(a, i), f32(2)), i)), {})


def dense(batch: dims.Dim | None = None, *, units: int = 8) -> IRModule:
    """``main(x) = x @ w + b`` of a symbolic number of rows unless given; w has 2048 bytes a unit, b has 4."""
    b = Builder()
    x = b.parameter("x", tensor(Var("n", "int64") if batch is None else batch, 512))
    product = b.op("matmul", x, b.constant(weights(512, units), "w"), origin="MatMul_0")
    return IRModule({"main": b.function(b.op("add", product, b.constant(weights(units, seed=1), "b")))})


def calls() -> IRModule:
    """``main(x, c)``: twice x where c, else x squared; twice as a tuple, the second of a length that is looked up."""
    n = Var("n", "int64")
    square = Builder()
    y = square.parameter("y", tensor(Var("m", "int64")))
    functions = {"twice": doubled(), "square": square.function(square.op("multiply", y, y), private=True)}

    b = Builder(functions)
    x, c = b.parameter("x", tensor(n)), b.parameter("c", tensor(dtype="bool"))
    then = _branch(functions, CallTIR("twice", (x,), (tensor(n),)))
    chosen = b.bind(Conditional(c, then, _branch(functions, FunctionCall("square", (x,)))), "chosen")
    again = b.match_cast(chosen, tensor(Var("k", "int64")), "again")
    return IRModule({**functions, "main": b.function([chosen, again])})


def _branch(functions: dict[str, Any], value: GraphExpr) -> Seq:
    inner = Builder(functions)
    return inner.seq(inner.bind(value, "inside"))
