"""What every node of the IR consists of, as a table: read by the serializer, the verifier and structural equality.

Adding a node is a row here (with the ``ir_version`` it appears ``since``), a message in ``proto/crossfarm/v1/ir.proto``
and a line in ``crossfarm/compat/versions.py``. Numbers and wire names are never reused: files carry them, never the
names of Python classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from crossfarm.ir import expr, stmt
from crossfarm.ir.buffer import SCOPES, Buffer, BufferRegion
from crossfarm.ir.dtype import SCALARS
from crossfarm.ir.expr import Expr, Range, Var
from crossfarm.ir.graph import expr as graph
from crossfarm.ir.graph import types
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import GraphExpr, GraphVar
from crossfarm.ir.graph.operators import OPERATORS as GRAPH_OPERATORS
from crossfarm.ir.intrinsics import INTRINSICS
from crossfarm.ir.stmt import AXIS_KINDS, LOOP_KINDS, IterVar, Stmt

#: Limit on what is read and written. A large network's module is some hundred thousand nodes of about 10 bytes.
MAX_NODES = 1 << 20


class Numbers:
    """A closed set of names with stable numbers, counted from 1 unless given, and the version each appeared in."""

    def __init__(self, what: str, ids: Mapping[str, int], since: Mapping[str, int] | None = None) -> None:
        self.what = what
        self.id_of = dict(ids)
        self.name_of = {number: name for name, number in ids.items()}
        self._since = dict(since or {})

    def since(self, name: str) -> int:
        """The ``ir_version`` that first had ``name``."""
        return self._since.get(name, 1)


def _counted(what: str, names: tuple[str, ...]) -> Numbers:
    return Numbers(what, {name: number for number, name in enumerate(names, start=1)})


#: The order of these tuples is the order of their numbers: append only.
DTYPES = _counted("dtype", (*SCALARS, "handle"))
OPERATORS = _counted("operator", expr.BINARY_OPS)
LOOPS = _counted("loop kind", LOOP_KINDS)
AXES = _counted("axis kind", AXIS_KINDS)
MEMORY = _counted("scope", SCOPES)
CALLS = Numbers("intrinsic", {name: row.id for name, row in INTRINSICS.items()})
GRAPH_CALLS = Numbers("graph operator", {name: row.id for name, row in GRAPH_OPERATORS.items()})


@dataclass(frozen=True)
class Field:
    """One field of a node.

    Attributes:
        name: in the Python class and in the proto message.
        kind: ``node``, ``optional`` (node or None), ``nodes`` (tuple), ``annotations`` (mapping of str to attribute
            values), ``attr`` (one attribute value), ``text``, ``dtype``, ``integer``, ``count`` (0 to 2**32 - 1),
            ``float``, ``flag``, ``constant`` (ConstantData), or ``choice`` (a name of ``numbers``).
        of: class or classes of the child or children.
    """

    name: str
    kind: str
    of: type | tuple[type, ...] = Expr
    numbers: Numbers | None = None


@dataclass(frozen=True)
class NodeSpec:
    """A node: its class, its field's name in the proto ``Node``, its fields in order, and since when it exists."""

    cls: type
    wire: str
    fields: tuple[Field, ...]
    since: int = 1
    #: Variables, buffers and graph variables are shared by reference; every other node has one parent.
    shared: bool = field(default=False, kw_only=True)


def _node(*names: str, of: type | tuple[type, ...] = Expr) -> tuple[Field, ...]:
    return tuple(Field(name, "node", of) for name in names)


def _text(name: str) -> Field:
    return Field(name, "text")


_DTYPE = Field("dtype", "dtype")
_BODY = Field("body", "node", Stmt)
_BUFFER = Field("buffer", "node", Buffer)
_VAR = Field("var", "node", Var)
_INDICES = Field("indices", "nodes")
_ANNOTATIONS = Field("annotations", "annotations")
_ARGS = Field("args", "nodes", GraphExpr)
_OUT = Field("out", "nodes", types.TensorType)
_TYPE = Field("type", "node", types.TYPES)
_GRAPH_VAR = Field("var", "node", GraphVar)

SPECS: tuple[NodeSpec, ...] = (
    NodeSpec(expr.Var, "var", (_text("name"), _DTYPE), shared=True),
    NodeSpec(expr.IntImm, "int_imm", (Field("value", "integer"), _DTYPE)),
    NodeSpec(expr.FloatImm, "float_imm", (Field("value", "float"), _DTYPE)),
    NodeSpec(expr.StringImm, "string_imm", (_text("value"),)),
    NodeSpec(expr.Binary, "binary", (Field("op", "choice", numbers=OPERATORS), *_node("a", "b"))),
    NodeSpec(expr.Not, "not", _node("a")),
    NodeSpec(expr.Cast, "cast", (*_node("value"), _DTYPE)),
    NodeSpec(expr.Select, "select", _node("condition", "true_value", "false_value")),
    NodeSpec(expr.Let, "let", (_VAR, *_node("value", "body"))),
    NodeSpec(expr.Call, "call", (Field("op", "choice", numbers=CALLS), Field("args", "nodes"), _DTYPE)),
    NodeSpec(expr.BufferLoad, "buffer_load", (_BUFFER, _INDICES)),
    NodeSpec(expr.Ramp, "ramp", (*_node("base", "stride"), Field("lanes", "count"))),
    NodeSpec(expr.Broadcast, "broadcast", (*_node("value"), Field("lanes", "count"))),
    NodeSpec(expr.Range, "range", _node("min", "extent")),
    NodeSpec(
        Buffer,
        "buffer",
        (
            _text("name"),
            Field("shape", "nodes"),
            _DTYPE,
            Field("strides", "nodes"),
            Field("elem_offset", "optional"),
            Field("scope", "choice", numbers=MEMORY),
            Field("align", "count"),
        ),
        shared=True,
    ),
    NodeSpec(BufferRegion, "buffer_region", (_BUFFER, Field("region", "nodes", Range))),
    NodeSpec(IterVar, "iter_var", (_VAR, *_node("dom", of=Range), Field("kind", "choice", numbers=AXES))),
    NodeSpec(stmt.MatchBufferRegion, "match_buffer_region", (_BUFFER, *_node("source", of=BufferRegion))),
    NodeSpec(stmt.SeqStmt, "seq", (Field("stmts", "nodes", Stmt),)),
    NodeSpec(
        stmt.For,
        "for_loop",
        (_VAR, *_node("min", "extent"), _BODY, Field("kind", "choice", numbers=LOOPS), _text("thread"), _ANNOTATIONS),
    ),
    NodeSpec(stmt.While, "while_loop", (*_node("condition"), _BODY)),
    NodeSpec(
        stmt.IfThenElse,
        "if_then_else",
        (*_node("condition"), *_node("then_body", of=Stmt), Field("else_body", "optional", Stmt)),
    ),
    NodeSpec(stmt.BufferStore, "buffer_store", (_BUFFER, *_node("value"), _INDICES)),
    NodeSpec(stmt.LetStmt, "let_stmt", (_VAR, *_node("value"), _BODY)),
    NodeSpec(stmt.Evaluate, "evaluate", _node("value")),
    NodeSpec(stmt.AssertStmt, "assert_stmt", (*_node("condition"), _text("message"))),
    NodeSpec(stmt.AttrStmt, "attr_stmt", (_text("key"), Field("value", "attr"), _BODY, _text("node"))),
    NodeSpec(stmt.Allocate, "allocate", (_BUFFER, _BODY, _ANNOTATIONS)),
    NodeSpec(
        stmt.Block,
        "block",
        (
            _text("name"),
            Field("iter_vars", "nodes", IterVar),
            # definitions before uses, so that reading in order meets a buffer where it is defined
            Field("alloc_buffers", "nodes", Buffer),
            Field("match_buffers", "nodes", stmt.MatchBufferRegion),
            Field("reads", "nodes", BufferRegion),
            Field("writes", "nodes", BufferRegion),
            Field("init", "optional", Stmt),
            _BODY,
            _ANNOTATIONS,
        ),
    ),
    NodeSpec(
        stmt.BlockRealize,
        "block_realize",
        (Field("iter_values", "nodes"), *_node("predicate"), *_node("block", of=stmt.Block)),
    ),
    *(
        NodeSpec(cls, wire, fields, since=2, shared=cls is GraphVar)
        for cls, wire, fields in (
            (types.TensorType, "tensor_type", (Field("shape", "nodes"), _DTYPE)),
            (types.TupleType, "tuple_type", (Field("fields", "nodes", types.TYPES),)),
            (types.ShapeType, "shape_type", (Field("values", "nodes"),)),
            (types.PrimType, "prim_type", (_DTYPE,)),
            (GraphVar, "graph_var", (_text("name"), _TYPE)),
            (graph.Constant, "constant", (Field("data", "constant"), _text("note"))),
            (graph.ShapeExpr, "shape_expr", (Field("values", "nodes"),)),
            (graph.PrimValue, "prim_value", _node("value")),
            (graph.TupleExpr, "tuple_expr", (Field("fields", "nodes", GraphExpr),)),
            (graph.TupleItem, "tuple_item", (*_node("value", of=GraphExpr), Field("index", "count"))),
            (
                graph.OperatorCall,
                "operator_call",
                (Field("op", "choice", numbers=GRAPH_CALLS), _ARGS, Field("attrs", "annotations"), _text("origin")),
            ),
            (graph.CallTIR, "call_tir", (_text("function"), _ARGS, _OUT, Field("sizes", "nodes"), _text("origin"))),
            (graph.CallPacked, "call_packed", (_text("function"), _ARGS, _OUT)),
            (graph.FunctionCall, "function_call", (_text("function"), _ARGS)),
            (
                graph.Conditional,
                "conditional",
                (*_node("condition", of=GraphExpr), *_node("then", "other", of=graph.Seq)),
            ),
            (graph.Binding, "binding", (_GRAPH_VAR, *_node("value", of=GraphExpr))),
            (graph.MatchCast, "match_cast", (_GRAPH_VAR, *_node("value", of=GraphExpr), _TYPE)),
            (
                graph.BindingBlock,
                "binding_block",
                (Field("bindings", "nodes", (graph.Binding, graph.MatchCast)), Field("dataflow", "flag")),
            ),
            (graph.Seq, "binding_seq", (Field("blocks", "nodes", graph.BindingBlock), *_node("result", of=GraphExpr))),
        )
    ),
)

BY_CLASS: dict[type, NodeSpec] = {spec.cls: spec for spec in SPECS}
BY_WIRE: dict[str, NodeSpec] = {spec.wire: spec for spec in SPECS}
#: Names of fields that hold annotations: an empty mapping there has no node of its own.
ANNOTATIONS = frozenset(f.name for spec in SPECS for f in spec.fields if f.kind == "annotations")
SHARED: tuple[type, ...] = tuple(spec.cls for spec in SPECS if spec.shared)


def children(node: Any) -> Iterator[tuple[str, Any]]:
    """(label, child) of a node, in the table's order: nodes, buffers, and the values of annotations.

    ``node`` may also be a mapping or a tuple inside annotations; anything else has no children.
    """
    spec = BY_CLASS.get(type(node))
    if spec is None:
        if isinstance(node, Mapping):
            yield from ((f"[{key!r}]", node[key]) for key in sorted(node))
        elif isinstance(node, tuple):
            yield from ((f"[{i}]", item) for i, item in enumerate(node))
        return
    for f in spec.fields:
        value = getattr(node, f.name)
        if f.kind in ("node", "attr", "annotations") or (f.kind == "optional" and value is not None):
            yield f.name, value
        elif f.kind == "nodes":
            yield from ((f"{f.name}[{i}]", item) for i, item in enumerate(value))


def type_problem(node: Any) -> str | None:
    """Why ``node``'s fields do not hold what the table says, or None. Children are looked at, not entered."""
    spec = BY_CLASS.get(type(node))
    if spec is None:
        return f"{type(node).__name__} is not a node of the IR"
    for f in spec.fields:
        value = getattr(node, f.name)
        if not _fits(f, value):
            return f"{type(node).__name__}.{f.name} holds {_shown(value)}, not {_wanted(f)}"
    return None


def class_names(of: type | tuple[type, ...]) -> str:
    """For messages: as ``Binding or MatchCast``."""
    return " or ".join(cls.__name__ for cls in (of if isinstance(of, tuple) else (of,)))


def _is_node(value: Any, of: type | tuple[type, ...]) -> bool:
    return isinstance(value, of) and type(value) in BY_CLASS


def _fits(f: Field, value: Any) -> bool:
    match f.kind:
        case "node":
            return _is_node(value, f.of)
        case "optional":
            return value is None or _is_node(value, f.of)
        case "nodes":
            return isinstance(value, tuple) and all(_is_node(item, f.of) for item in value)
        case "annotations":
            return isinstance(value, Mapping)
        case "attr":
            return True
        case "choice":
            assert f.numbers is not None
            return isinstance(value, str) and value in f.numbers.id_of
        case "integer":
            return type(value) is int
        case "count":
            return type(value) is int and 0 <= value < 1 << 32
        case "float":
            return type(value) is float
        case "flag":
            return type(value) is bool
        case "constant":
            return isinstance(value, ConstantData)
        case _:
            return isinstance(value, str)


def _wanted(f: Field) -> str:
    match f.kind:
        case "choice":
            assert f.numbers is not None
            return f"a known {f.numbers.what}"
        case "nodes":
            return f"a tuple of {class_names(f.of)}"
        case "node" | "optional":
            return f"an {class_names(f.of)}" if f.of is Expr else f"a {class_names(f.of)}"
        case "integer" | "count":
            return "an int"
        case "text" | "dtype":
            return "a str"
        case "flag":
            return "a bool"
        case "constant":
            return "a ConstantData"
        case kind:
            return f"a {kind}"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
