"""Random modules for hypothesis: typed expressions and statements of every kind, in block and in lowered form."""

from __future__ import annotations

from hypothesis import strategies as st

from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import (
    ARITHMETIC,
    BITWISE,
    COMPARISONS,
    LOGICAL,
    Binary,
    Broadcast,
    BufferLoad,
    Call,
    Cast,
    Expr,
    FloatImm,
    IntImm,
    Let,
    Not,
    Ramp,
    Range,
    Select,
    Var,
)
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import (
    AXIS_KINDS,
    Allocate,
    AssertStmt,
    AttrStmt,
    AttrValue,
    Block,
    BlockRealize,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    IterVar,
    LetStmt,
    SeqStmt,
    Stmt,
    While,
)
from crossfarm.ir.visitor import seq

TRUE = IntImm(1, "bool")
NUMBERS = ("int32", "int64", "int8", "uint8", "uint64", "float16", "float32", "float64")
#: Names that clash with each other, with Python and with the dialect.
NAMES = st.sampled_from(["i", "i", "i_1", "x", "v_i", "T", "for", "a.b", "0", "", "ä", "range", "metadata"])
DTYPES = st.sampled_from([*NUMBERS, "bool"])
TEXTS = st.text(max_size=6)


@st.composite
def literals(draw: st.DrawFn, dtype: str) -> Expr:
    if dt.is_float(dtype):
        return FloatImm(draw(st.floats(width=64)), dtype)
    return IntImm(draw(st.integers(*dt.int_range(dtype))), dtype)


class Surroundings:
    """What an expression may use."""

    def __init__(self, variables: tuple[Var, ...], buffers: tuple[Buffer, ...]) -> None:
        self.variables = variables
        self.buffers = buffers

    def plus(self, *variables: Var) -> Surroundings:
        return Surroundings((*self.variables, *variables), self.buffers)

    def plus_buffer(self, buffer: Buffer) -> Surroundings:
        return Surroundings(self.variables, (*self.buffers, buffer))


@st.composite
def expressions(draw: st.DrawFn, around: Surroundings, dtype: str, depth: int = 3) -> Expr:
    """A well-typed scalar expression."""
    leaves = [v for v in around.variables if v.dtype == dtype]
    kinds = ["literal", *(["variable"] * 2 if leaves else [])]
    if depth > 0:
        kinds += ["binary", "binary", "cast", "select", "if", "let", "call", "load"]
        kinds += ["compare", "logic", "not"] if dtype == "bool" else []
    kind = draw(st.sampled_from(kinds))

    def sub(of: str = dtype, where: Surroundings = around) -> Expr:
        return draw(expressions(where, of, depth - 1))

    if kind == "variable":
        return draw(st.sampled_from(leaves))
    if kind == "binary" and dtype != "bool":
        known = [*ARITHMETIC, *BITWISE] if dt.is_int(dtype) else ["add", "sub", "mul", "div", "min", "max"]
        return Binary(draw(st.sampled_from(known)), sub(), sub())
    if kind == "compare":
        of = draw(DTYPES)
        return Binary(draw(st.sampled_from(COMPARISONS)), sub(of), sub(of))
    if kind == "logic":
        return Binary(draw(st.sampled_from(LOGICAL)), sub(), sub())
    if kind == "not":
        return Not(sub())
    if kind == "cast":
        return Cast(sub(draw(DTYPES)), dtype)
    if kind == "select":
        return Select(sub("bool"), sub(), sub())
    if kind == "if":
        return Call("if_then_else", (sub("bool"), sub(), sub()), dtype)
    if kind == "let":
        var = Var(draw(NAMES), draw(DTYPES))
        return Let(var, sub(var.dtype), sub(where=around.plus(var)))
    if kind == "call" and dt.is_float(dtype):
        name = draw(st.sampled_from(["exp", "sqrt", "erf", "abs", "floor"]))
        return Call(name, (sub(),), dtype)
    if kind == "load":
        buffers = [b for b in around.buffers if b.dtype == dtype]
        if buffers:
            buffer = draw(st.sampled_from(buffers))
            return BufferLoad(buffer, tuple(draw(expressions(around, "int32", 1)) for _ in buffer.shape))
    return draw(literals(dtype))


@st.composite
def stores(draw: st.DrawFn, around: Surroundings) -> Stmt:
    buffer = draw(st.sampled_from(around.buffers))
    indices = [draw(expressions(around, "int32", 1)) for _ in buffer.shape]
    if indices and draw(st.booleans()):
        lanes = draw(st.integers(2, 8))
        indices[-1] = Ramp(indices[-1], ops.const(draw(st.integers(1, 3))), lanes)
        return BufferStore(buffer, Broadcast(draw(expressions(around, buffer.dtype)), lanes), tuple(indices))
    return BufferStore(buffer, draw(expressions(around, buffer.dtype)), tuple(indices))


ATTRIBUTES: st.SearchStrategy[AttrValue] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
#: No module has these keys: the first is another spelling of ``tir.``, the others repeat what is known anyway.
KEYS = TEXTS.filter(lambda key: not key.startswith("tirx.") and key not in ("s_tir", "tir.s_tir", "global_symbol"))
ANNOTATIONS = st.dictionaries(KEYS, ATTRIBUTES, max_size=2)


@st.composite
def buffers(draw: st.DrawFn, around: Surroundings, **fixed: object) -> Buffer:
    shape = tuple(ops.const(draw(st.integers(1, 8))) for _ in range(draw(st.integers(0, 3))))
    scope = draw(st.sampled_from(["global", "shared", "local"]))
    return Buffer(draw(NAMES), shape, draw(DTYPES), (), None, scope, draw(st.sampled_from([16, 64, 128])))


@st.composite
def statements(draw: st.DrawFn, around: Surroundings, depth: int, blocks: bool) -> Stmt:
    """One statement; ``blocks`` gives the block form, else the lowered one."""
    kinds = ["store", "store", "evaluate", "assert"]
    if depth > 0:
        kinds += ["for", "if", "while", "let", "attr", "sequence", "sequence"]
        kinds += ["block", "block"] if blocks else ["allocate"]
    kind = draw(st.sampled_from(kinds))

    def inner(where: Surroundings = around) -> Stmt:
        return draw(statements(where, depth - 1, blocks))

    if kind == "evaluate":
        return Evaluate(draw(expressions(around, draw(DTYPES))))
    if kind == "assert":
        return AssertStmt(draw(expressions(around, "bool")), draw(TEXTS))
    if kind == "for":
        var = Var(draw(NAMES), draw(st.sampled_from(["int32", "int64"])))
        low = draw(st.just(ops.const(0, var.dtype)) | expressions(around, var.dtype, 1))
        loop = draw(st.sampled_from(["serial", "serial", "parallel", "vectorized", "unrolled", "thread_binding"]))
        thread = "threadIdx.x" if loop == "thread_binding" else ""
        extent = draw(expressions(around, var.dtype, 1))
        return For(var, low, extent, inner(around.plus(var)), loop, thread, draw(st.just({}) | ANNOTATIONS))
    if kind == "if":
        return IfThenElse(draw(expressions(around, "bool")), inner(), inner() if draw(st.booleans()) else None)
    if kind == "while":
        return While(draw(expressions(around, "bool")), inner())
    if kind == "let":
        var = Var(draw(NAMES), draw(DTYPES))
        return LetStmt(var, draw(expressions(around, var.dtype)), inner(around.plus(var)))
    if kind == "attr":
        return AttrStmt(draw(KEYS), draw(ATTRIBUTES), inner(), draw(TEXTS))
    if kind == "sequence":
        return seq(*(inner() for _ in range(draw(st.integers(2, 3)))))
    if kind == "allocate":
        buffer = draw(buffers(around))
        annotations = draw(ANNOTATIONS) if buffer.align == 64 else {}
        return Allocate(buffer, inner(around.plus_buffer(buffer)), annotations)
    if kind == "block":
        return draw(realizations(around, depth))
    return draw(stores(around))


@st.composite
def realizations(draw: st.DrawFn, around: Surroundings, depth: int) -> Stmt:
    """A block in its place."""
    axes, values = [], []
    for _ in range(draw(st.integers(0, 3))):
        dtype = draw(st.sampled_from(["int32", "int64"]))
        dom = Range(ops.const(draw(st.integers(0, 2)), dtype), ops.const(draw(st.integers(1, 8)), dtype))
        axes.append(IterVar(Var(draw(NAMES), dtype), dom, draw(st.sampled_from(AXIS_KINDS))))
        values.append(draw(expressions(around, dtype, 1)))
    inside = around.plus(*(axis.var for axis in axes))
    reads = tuple(draw(st.lists(regions(inside), min_size=1, max_size=2)))  # both empty would mean: infer them
    writes = tuple(draw(st.lists(regions(inside), max_size=2)))
    allocated = draw(buffers(around)) if draw(st.booleans()) else None
    if allocated is not None:
        inside = inside.plus_buffer(allocated)
    block = Block(
        draw(TEXTS),
        tuple(axes),
        reads,
        writes,
        draw(statements(inside, depth - 1, True)),
        draw(st.none() | statements(inside, 0, False)),
        (allocated,) if allocated is not None else (),
        (),
        draw(ANNOTATIONS),
    )
    return BlockRealize(tuple(values), draw(st.just(TRUE) | expressions(around, "bool", 1)), block)


@st.composite
def regions(draw: st.DrawFn, around: Surroundings) -> BufferRegion:
    buffer = draw(st.sampled_from(around.buffers))
    ranges = []
    for _ in buffer.shape:
        low = draw(expressions(around, "int32", 1))
        ranges.append(Range(low, draw(st.just(ops.const(1)) | expressions(around, "int32", 1))))
    return BufferRegion(buffer, tuple(ranges))


@st.composite
def functions(draw: st.DrawFn) -> PrimFunc:
    size = Var(draw(NAMES), draw(st.sampled_from(["int32", "int64"])))
    scalars = tuple(Var(draw(NAMES), dtype) for dtype in draw(st.lists(DTYPES, max_size=3)))
    fixed = Buffer(draw(NAMES), (ops.const(4), ops.const(8)), draw(DTYPES))
    moving = Buffer(draw(NAMES), (size, ops.add(size, 1)), draw(DTYPES), (size, ops.const(1, size.dtype)))
    around = Surroundings((*scalars, size), (fixed, moving))
    if draw(st.booleans()):
        body: Stmt = draw(statements(around, 3, False))
    else:
        block = Block("root", (), (), (), draw(statements(around, 3, True)))
        body = BlockRealize((), TRUE, block)
    return PrimFunc((fixed, *scalars, moving), body, draw(ANNOTATIONS), draw(st.booleans()))


@st.composite
def modules(draw: st.DrawFn) -> IRModule:
    """A whole module. Its names, not its meaning, are checked: it need not be well-formed beyond its dtypes."""
    names = draw(st.lists(st.sampled_from(["main", "f", "g"]), unique=True, max_size=2))
    return IRModule({name: draw(functions()) for name in names}, draw(ANNOTATIONS))


EMPTY = SeqStmt(())
