"""Random modules of graph functions for hypothesis: every kind of node and type, sizes, odd names and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Binary, Expr, FloatImm, IntImm, Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import (
    Binding,
    BindingBlock,
    CallPacked,
    CallTIR,
    Conditional,
    Constant,
    Function,
    FunctionCall,
    GraphExpr,
    GraphVar,
    MatchCast,
    PrimValue,
    Seq,
    ShapeExpr,
    TupleExpr,
)
from crossfarm.ir.graph.types import PrimType, ShapeType, TensorType, TupleType
from crossfarm.ir.module import IRModule
from tests.ir.graph_programs import doubled

DTYPES = st.sampled_from(["float32", "float32", "float16", "float64", "int64", "int8", "uint8", "bool"])
#: Names that clash with each other, with Python, with sizes and with the dialect.
NAMES = st.sampled_from(["lv", "lv", "x", "n", "lv_1", "R", "T", "cls", "for", "a.b", "0", "", "ä", "metadata", "gv"])
_NUMBERS = st.floats(width=64)
_TEXTS = st.text(max_size=6)
_BINARY = ("add", "multiply", "subtract", "maximum", "equal")
_UNARY = ("exp", "negative", "nn.relu", "isinf")


@st.composite
def sizes(draw: st.DrawFn, symbols: list[Var]) -> Expr:
    """A dimension: a constant, a symbolic size, or arithmetic of both."""
    symbol = draw(st.sampled_from(symbols))
    number = IntImm(draw(st.integers(1, 2**40)), "int64")
    match draw(st.sampled_from(["number", "symbol", "symbol", "sum", "product", "quotient", "least"])):
        case "number":
            return dims.dim(draw(st.integers(0, 9)))
        case "sum":
            return dims.add(dims.mul(symbol, draw(st.integers(-3, 3))), draw(st.sampled_from([*symbols, number])))
        case "product":
            return dims.mul(dims.add(symbol, number), draw(st.sampled_from(symbols)))
        case "quotient":
            return dims.dim(Binary(draw(st.sampled_from(["floordiv", "floormod"])), dims.add(symbol, 3), number))
        case "least":
            return dims.dim(Binary("min", number, Binary("max", symbol, number)))
        case _:
            return symbol


@st.composite
def tensors(draw: st.DrawFn, symbols: list[Var]) -> TensorType:
    return TensorType(tuple(draw(st.lists(sizes(symbols), max_size=3))), draw(DTYPES))


@st.composite
def constants(draw: st.DrawFn) -> Constant:
    """Scalars and small tensors of any numbers, empty ones, large ones, and ones whose content is elsewhere."""
    dtype = draw(DTYPES)
    shape = tuple(draw(st.sampled_from([(), (), (3,), (2, 2), (1, 3, 1), (0, 2), (0,), (65,)])))
    if 0 not in shape and draw(st.integers(0, 5)) == 0:
        return Constant(ConstantData(dtype, (7, *shape), digest=draw(st.binary(min_size=32, max_size=32)).hex()))
    count = int(np.prod(shape))
    width = dt.bits(dtype)
    if dt.is_float(dtype):
        numbers: Any = draw(st.lists(st.floats(width=width), min_size=count, max_size=count))  # type: ignore[arg-type]
    else:
        numbers = draw(st.lists(st.integers(*dt.int_range(dtype)), min_size=count, max_size=count))
    return Constant(ConstantData.of(np.array(numbers, dt.to_numpy(dtype)).reshape(shape)), draw(_TEXTS))


class _Making:
    """A function in the making: what there is to use."""

    def __init__(self, draw: st.DrawFn, functions: dict[str, Any]) -> None:
        self.draw = draw
        self.symbols = [Var(draw(NAMES), "int64") for _ in range(draw(st.integers(1, 3)))]
        self.builder = Builder(functions)
        self.made: list[GraphVar] = []

    def tensor(self) -> TensorType:
        return self.draw(tensors(self.symbols))

    def atom(self) -> GraphExpr:
        """Something that a call may take."""
        draw = self.draw
        match draw(st.sampled_from(["variable"] * 4 + ["constant", "shape", "number", "tuple"])):
            case "constant":
                return draw(constants())
            case "shape":
                return ShapeExpr(tuple(draw(st.lists(sizes(self.symbols), max_size=3))))
            case "number":
                return PrimValue(
                    draw(
                        st.one_of(
                            sizes(self.symbols),
                            st.builds(FloatImm, _NUMBERS, st.sampled_from(["float32", "float64"])),
                            st.builds(IntImm, st.integers(-128, 127), st.sampled_from(["int8", "int32", "int64"])),
                        )
                    )
                )
            case "tuple":
                return TupleExpr(tuple(self.atom() for _ in range(draw(st.integers(0, 3)))))
        return draw(st.sampled_from(self.made))

    def step(self, depth: int) -> None:
        """One more binding, or none where operands do not fit together."""
        draw, b = self.draw, self.builder
        label, origin = draw(NAMES), draw(_TEXTS)
        one = draw(st.sampled_from(self.made))
        kinds = ["operator"] * 4 + ["tir", "packed", "call", "cast", "item", "alias", "if"]
        match draw(st.sampled_from(kinds)):
            case "operator":
                self.operator(one, label, origin)
            case "tir":
                args = tuple(self.atom() for _ in range(draw(st.integers(0, 3))))
                out = tuple(self.tensor() for _ in range(draw(st.integers(1, 2))))
                scalars = tuple(draw(st.lists(sizes(self.symbols) | st.builds(IntImm, st.integers(0, 9)), max_size=2)))
                self.made.append(b.bind(CallTIR("twice", args, out, scalars, origin), label))
            case "packed":
                self.made.append(b.bind(CallPacked(draw(_TEXTS), (self.atom(),), (self.tensor(),)), label))
            case "call" if isinstance(one.type, TensorType) and one.type.ndim == 1 and one.type.dtype == "float32":
                self.made.append(b.bind(FunctionCall("same", (one,)), label))
            case "cast":
                self.made.append(b.match_cast(one, self.tensor(), label))
            case "item" if isinstance(one.type, TupleType) and one.type.fields:
                self.made += b.items(one)
            case "if" if depth:
                condition = Constant(ConstantData.of(np.array(draw(st.booleans()))))
                then, other = (self.branch(one, depth - 1) for _ in range(2))
                self.made.append(b.bind(Conditional(condition, then, other), label))
            case "alias":
                self.made.append(b.bind(draw(st.one_of(st.just(one), constants())), label))

    def operator(self, one: GraphVar, label: str, origin: str) -> None:
        draw, b = self.draw, self.builder
        name = draw(st.sampled_from([*_BINARY, *_UNARY, "sum", "clip", "astype", "nn.leakyrelu"]))
        attrs: dict[str, Any] = {}
        operands: list[GraphExpr] = [one]
        if name in _BINARY:
            operands.append(draw(st.sampled_from([one, draw(constants()), *self.made])))
        elif name == "sum":
            attrs = {"axis": draw(st.none() | st.just((0,))), "keepdims": draw(st.booleans())}
        elif name == "clip":
            attrs = {"min": draw(st.none() | _NUMBERS), "max": draw(st.none() | st.integers(-9, 9))}
        elif name == "astype":
            attrs = {"dtype": draw(DTYPES)}
        elif name == "nn.leakyrelu":
            attrs = {"alpha": draw(_NUMBERS)}
        try:
            self.made.append(b.op(name, *operands, origin=origin, label=label, **attrs))
        except InvalidModule:  # dtypes or shapes that do not fit
            pass

    def branch(self, result: GraphVar, depth: int) -> Seq:
        """A branch that ends in ``result`` or something of its type."""
        outer, made = self.builder, list(self.made)
        self.builder = Builder(outer.functions)
        for _ in range(self.draw(st.integers(0, 2))):
            self.step(depth)
        seq = self.builder.seq(self.draw(st.sampled_from([result, self.builder.match_cast(result, result.type)])))
        self.builder, self.made = outer, made
        return seq


@st.composite
def modules(draw: st.DrawFn) -> IRModule:
    """A module of graph functions and the tensor program that they call; what it computes means nothing."""
    n = Var("n", "int64")
    x = GraphVar("x", TensorType((n,), "float32"))
    functions: dict[str, Any] = {"twice": doubled(), "same": Function((x,), Seq((), x), x.type, private=True)}
    making = _Making(draw, functions)
    b = making.builder
    types = [making.tensor(), *draw(st.lists(tensors(making.symbols), max_size=2))]
    extra = draw(
        st.sampled_from(
            [(), (ShapeType(tuple(making.symbols)),), (PrimType("int64"), TupleType((types[0], TupleType(()))))]
        )
    )
    making.made += [b.parameter(draw(NAMES), kind) for kind in (*types, *extra)]
    for _ in range(draw(st.integers(0, 6))):
        making.step(depth=2)
    keys = _TEXTS.filter(lambda key: not key.startswith("tirx."))  # the canonical dialect has tir.
    attrs = draw(
        st.dictionaries(keys, st.integers(-(2**63), 2**63 - 1) | _TEXTS | st.just(making.symbols[0]), max_size=2)
    )
    main = b.function([making.made[-1], making.atom()], attrs=attrs, private=draw(st.booleans()))
    body = Seq(tuple(draw(_split(main.body))), main.body.result)
    functions["main"] = Function(main.params, body, main.result, attrs, main.private, draw(st.booleans()))
    return IRModule(functions)


@st.composite
def _split(draw: st.DrawFn, body: Seq) -> list[BindingBlock]:
    """The bindings in several blocks, of which no two that follow each other are plain."""
    blocks: list[BindingBlock] = []
    waiting: list[Binding | MatchCast] = []
    bindings = [b for block in body.blocks for b in block.bindings]
    for position, binding in enumerate(bindings):
        waiting.append(binding)
        if position + 1 == len(bindings) or draw(st.booleans()):
            dataflow = draw(st.booleans()) or bool(blocks and not blocks[-1].dataflow)
            blocks.append(BindingBlock(tuple(waiting), dataflow))
            waiting = []
    return blocks
