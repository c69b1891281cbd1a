"""Graph functions' expressions: immutable trees, values bound to names one after the other.

What a call takes is *atomic*: a variable, a constant, a shape, a number, or a tuple of such; whatever else is an
argument is bound to a variable first (``Builder`` in ``crossfarm.ir.graph.builder`` does so). A binding's variable
carries its type, which the verifier compares with what ``crossfarm.ir.graph.infer`` finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from crossfarm.ir.expr import Expr
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.types import TensorType, Type
from crossfarm.ir.stmt import Annotations, AttrValue


@dataclass(frozen=True, eq=False)
class GraphExpr:
    """Base of all expressions over tensors."""


@dataclass(frozen=True, eq=False)
class GraphVar(GraphExpr):
    """A parameter or what a binding names; compared by identity."""

    name: str
    type: Type


@dataclass(frozen=True, eq=False)
class Constant(GraphExpr):
    """A tensor that is known when the module is made; ``note`` is what it was called where it came from."""

    data: ConstantData
    note: str = ""


@dataclass(frozen=True, eq=False)
class ShapeExpr(GraphExpr):
    """A shape as a value: int64 expressions of symbolic sizes."""

    values: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class PrimValue(GraphExpr):
    """A number as a value."""

    value: Expr


@dataclass(frozen=True, eq=False)
class TupleExpr(GraphExpr):
    """Several values as one."""

    fields: tuple[GraphExpr, ...]


@dataclass(frozen=True, eq=False)
class TupleItem(GraphExpr):
    """One field of a tuple."""

    value: GraphExpr
    index: int


@dataclass(frozen=True, eq=False)
class OperatorCall(GraphExpr):
    """``R.<op>(*args, **attrs)``, op a name of ``crossfarm.ir.graph.operators``.

    Attributes:
        args: the tensors, in the order of the operator's inputs; trailing optional ones may be left out.
        attrs: those that differ from the operator's defaults, or all of them: both mean the same.
        origin: the node of the foreign program that it came from, "" for none; no part of its meaning.
    """

    op: str
    args: tuple[GraphExpr, ...]
    attrs: Mapping[str, AttrValue] = field(default_factory=dict)
    origin: str = ""


@dataclass(frozen=True, eq=False)
class CallTIR(GraphExpr):
    """A PrimFunc of the module: it is called with ``args``, then with new tensors of types ``out``, which it fills and
    which are the value (a tuple where there are several), then with ``sizes`` as scalar arguments."""

    function: str
    args: tuple[GraphExpr, ...]
    out: tuple[TensorType, ...]
    sizes: tuple[Expr, ...] = ()
    origin: str = ""


@dataclass(frozen=True, eq=False)
class CallPacked(GraphExpr):
    """A function of the system it runs on, by name, called like ``CallTIR``; read and printed, never built."""

    function: str
    args: tuple[GraphExpr, ...]
    out: tuple[TensorType, ...]


@dataclass(frozen=True, eq=False)
class FunctionCall(GraphExpr):
    """A graph function of the module."""

    function: str
    args: tuple[GraphExpr, ...]


@dataclass(frozen=True, eq=False)
class Conditional(GraphExpr):
    """``then`` where ``condition``, a bool scalar tensor, is true, else ``other``; both of one type."""

    condition: GraphExpr
    then: Seq
    other: Seq


@dataclass(frozen=True, eq=False)
class Binding:
    """``var = value``."""

    var: GraphVar
    value: GraphExpr


@dataclass(frozen=True, eq=False)
class MatchCast:
    """``var = R.match_cast(value, type)``: checked when the program runs; bare Vars that are new define sizes."""

    var: GraphVar
    value: GraphExpr
    type: Type


@dataclass(frozen=True, eq=False)
class BindingBlock:
    """Bindings in order; ``dataflow``: none has an effect beyond its value, so they may be moved and dropped."""

    bindings: tuple[Binding | MatchCast, ...]
    dataflow: bool = True


@dataclass(frozen=True, eq=False)
class Seq:
    """Blocks of bindings, then an atomic value: a function's body, a branch."""

    blocks: tuple[BindingBlock, ...]
    result: GraphExpr


@dataclass(frozen=True, eq=False)
class Function:
    """A graph program over tensors.

    Attributes:
        params: variables of tensor types mostly; bare Vars in their shapes define the symbolic sizes.
        body: ends in the value that the function returns.
        result: its type.
        attrs: as ``{"num_input": 1}``.
        private: not callable from outside the module.
        pure: no effect beyond its value.
    """

    params: tuple[GraphVar, ...]
    body: Seq
    result: Type
    attrs: Annotations = field(default_factory=dict)
    private: bool = False
    pure: bool = True


#: What a call's argument may be.
ATOMS = (GraphVar, Constant, ShapeExpr, PrimValue)
