"""Graph functions that tests of the IR share."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from crossfarm.ir.expr import IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import (
    Binding,
    BindingBlock,
    CallPacked,
    CallTIR,
    Conditional,
    Function,
    FunctionCall,
    GraphExpr,
    GraphVar,
    PrimValue,
    Seq,
    ShapeExpr,
    TupleExpr,
)
from crossfarm.ir.graph.types import PrimType, ShapeType, TensorType, TupleType
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import SeqStmt
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


@st.composite
def modules(draw: st.DrawFn) -> IRModule:
    """A module of one graph function ``main(x, y)`` over [n, 4]: sums, products, constants small and large, tuples,
    conditionals and casts, each using what was made before."""
    n = Var("n", "int64")
    b = Builder()
    kind = tensor(n, 4)
    made = [b.parameter("x", kind), b.parameter("y", kind)]
    flag = b.parameter("flag", tensor(dtype="bool"))
    for step in range(draw(st.integers(0, 8))):
        one, other = draw(st.sampled_from(made)), draw(st.sampled_from(made))
        match draw(st.sampled_from(["add", "multiply", "small", "large", "tuple", "conditional", "cast"])):
            case "small":
                made.append(b.op("add", one, b.constant(weights(4, seed=step % 3)), origin=f"node {step}"))
            case "large":
                rows = b.op("multiply", b.constant(weights(300, 4, seed=step % 3), f"w{step}"), b.constant(weights(4)))
                made.append(b.op("matmul", one, b.op("matmul", b.constant(weights(4, 300, seed=step % 3)), rows)))
            case "tuple":
                made += b.items(b.bind(TupleExpr((one, other))))
            case "conditional":
                inner = Builder()
                then = inner.seq(inner.op("add", one, other))
                made.append(b.bind(Conditional(flag, then, inner.seq(one))))
            case "cast":
                made.append(b.match_cast(one, kind))
            case op_name:
                made.append(b.op(op_name, one, other))
    return IRModule({"main": b.function([made[-1], draw(st.sampled_from(made))])})


def every_graph_node() -> IRModule:
    """Every kind of node of a graph function, with every field holding something."""
    n, m = Var("n", "int64"), Var("m", "int64")
    functions: dict[str, Any] = {"split": split(), "same": identity(tensor(Var("k", "int64")))}
    b = Builder(functions)
    x = b.parameter("x", tensor(n, dims.dim(4)))
    c = b.parameter("c", tensor(dtype="bool"))
    b.parameter("s", ShapeType((n, m)))
    b.parameter("p", PrimType("float16"))
    pair = b.bind(TupleExpr((x, b.constant(weights(4), "bias"))), "pair")
    total = b.op("add", *b.items(pair), origin="Add_1", label="total")
    wide = b.op("matmul", total, b.constant(weights(4, 700), "w"), out_dtype="float64", label="wide")
    row = b.match_cast(wide, tensor(m, 700, dtype="float64"), "row")
    called = b.bind(CallTIR("split", (x,), (tensor(n, 4), tensor(m)), (dims.mul(n, 2),), "Split"), "called")
    printed = b.bind(CallPacked("vm.print", (x, ShapeExpr((n, m)), PrimValue(n)), (tensor(1),)), "printed")
    again = b.bind(FunctionCall("same", (printed,)), "again")
    inner = Builder(functions)
    chosen = b.bind(Conditional(c, inner.seq(inner.op("add", again, again)), inner.seq(again)), "chosen")
    blocks = (*b.seq(x).blocks, BindingBlock((Binding(GraphVar("last", x.type), x),), dataflow=False))
    body = Seq(blocks, TupleExpr((row, called, chosen)))
    result = TupleType((row.type, called.type, chosen.type))
    main = Function(b.function(x).params, body, result, {"output_names": ("r", "c", "d"), "size": n}, True, False)
    return IRModule({"main": main, **functions}, {"k": 1}, name="Graphs")


def split() -> PrimFunc:
    """``split(A[n, 4], B[n, 4], C[m], s)``, which does nothing."""
    n, m = Var("n", "int64"), Var("m", "int64")
    four = IntImm(4, "int64")
    return PrimFunc((buffer("A", n, four), buffer("B", n, four), buffer("C", m), Var("s", "int64")), SeqStmt(()), {})


def identity(kind: TensorType) -> Function:
    """Returns its parameter."""
    x = GraphVar("x", kind)
    return Function((x,), Seq((), x), kind)
