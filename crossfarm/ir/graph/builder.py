"""Makes graph functions: each value is named and typed as it is made.

::

    b = Builder()
    n = Var("n", "int64")
    x = b.parameter("x", TensorType((n, dims.dim(512)), "float32"))
    w = b.constant(weights)
    y = b.op("nn.relu", b.op("matmul", x, w))
    module = IRModule({"main": b.function(y)})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import (
    ATOMS,
    Binding,
    BindingBlock,
    Constant,
    Function,
    GraphExpr,
    GraphVar,
    MatchCast,
    OperatorCall,
    Seq,
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.graph.infer import type_of
from crossfarm.ir.graph.types import TupleType, Type


class Builder:
    """One function in the making.

    Attributes:
        functions: of the module, for calls of graph functions.
    """

    def __init__(self, functions: Mapping[str, object] | None = None) -> None:
        self.functions = dict(functions or {})
        self._params: list[GraphVar] = []
        self._bindings: list[Binding | MatchCast] = []
        self._names: dict[str, int] = {}

    def parameter(self, name: str, type: Type) -> GraphVar:
        """The next parameter."""
        var = GraphVar(self._unique(name), type)
        self._params.append(var)
        return var

    def constant(self, array: Any, note: str = "") -> Constant:
        """A constant with the content of ``array``, which is not copied."""
        return Constant(array if isinstance(array, ConstantData) else ConstantData.of(array), note)

    def op(self, name: str, *args: GraphExpr, origin: str = "", label: str = "", **attrs: Any) -> GraphVar:
        """The results of an operator, by name; see ``items`` for one that has several.

        Raises:
            InvalidModule: the operands do not fit; the message names operator and operands.
        """
        return self.bind(OperatorCall(name, tuple(self.atom(a) for a in args), attrs, origin), label or "lv")

    def items(self, value: GraphVar) -> list[GraphVar]:
        """The fields of a tuple, each bound."""
        assert isinstance(value.type, TupleType)
        return [self.bind(TupleItem(value, i)) for i in range(len(value.type.fields))]

    def atom(self, value: GraphExpr) -> GraphExpr:
        """``value`` where a call may take it as it is, else a variable bound to it."""
        if isinstance(value, ATOMS):
            return value
        if isinstance(value, TupleExpr):
            return TupleExpr(tuple(self.atom(f) for f in value.fields))
        return self.bind(value)

    def bind(self, value: GraphExpr, label: str = "lv", type: Type | None = None) -> GraphVar:
        """A new variable for ``value``; its type is found unless given."""
        var = GraphVar(self._unique(label), type if type is not None else type_of(value, self.functions))
        self._bindings.append(Binding(var, value))
        return var

    def match_cast(self, value: GraphExpr, type: Type, label: str = "lv") -> GraphVar:
        """``value`` as what is known to be of ``type``; bare Vars that are new in it are sizes defined here."""
        var = GraphVar(self._unique(label), type)
        self._bindings.append(MatchCast(var, self.atom(value), type))
        return var

    def seq(self, result: GraphExpr) -> Seq:
        """What was bound so far, ending in ``result``; the builder is empty of bindings then."""
        value = self.atom(result)
        bindings, self._bindings = tuple(self._bindings), []
        return Seq((BindingBlock(bindings),) if bindings else (), value)

    def function(self, result: GraphExpr | Sequence[GraphExpr], **fields: Any) -> Function:
        """The function that returns ``result``; ``fields`` are further ones of ``Function``."""
        whole = result if isinstance(result, GraphExpr) else TupleExpr(tuple(result))
        body = self.seq(whole)
        return Function(tuple(self._params), body, type_of(body.result, self.functions), **fields)

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return f"{name}_{count}" if count else name
