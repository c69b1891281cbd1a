"""Calls that give what is there already: identities, and the same call once more. No result changes by a bit.

Whatever only gives a tensor another shape becomes ``reshape``, which is no work where it is alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from compiler_service.passes.graph.immediate import is_immediate
from compiler_service.passes.graph.lower_operators import RESHAPES
from compiler_service.passes.graph.rewrite import Rewriter, map_graph_functions
from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import structural_key
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import (
    Conditional,
    Constant,
    GraphExpr,
    GraphVar,
    OperatorCall,
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.graph.infer import same_type, type_of
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.module import AnyFunction, IRModule

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class SimplifyGraph:
    """Identities and common subexpressions of operators."""

    name: ClassVar[str] = "simplify_graph"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_graph_functions(module, lambda _, function: _Simplifier(module.functions).mutate_function(function))


class _Simplifier(Rewriter):
    def __init__(self, functions: Mapping[str, AnyFunction]) -> None:
        super().__init__(functions)
        self._calls: dict[Hashable, GraphVar] = {}

    def rewrite(self, var: GraphVar, value: GraphExpr) -> GraphExpr:
        if isinstance(value, OperatorCall) and isinstance(var.type, TensorType):
            value = self._simplified(value, var.type)
        if isinstance(value, TupleItem):
            whole = self.definition(value.value)
            value = whole.fields[value.index] if isinstance(whole, TupleExpr) else value
        key = _key(value)
        if key is None:
            return value
        first = self._calls.setdefault(key, var)
        return value if first is var else first

    def mutate_Conditional(self, expr: Conditional) -> GraphExpr:
        known, self._calls = self._calls, dict(self._calls)
        result = super().mutate_Conditional(expr)
        self._calls = known
        return result

    def _simplified(self, call: OperatorCall, kind: TensorType) -> GraphExpr:
        """What the call gives, in fewer words, or the call."""
        for rule in (_neutral, self._reshape, self._permute, self._spread):
            found = rule(call, kind)
            if found is None:
                continue
            if not isinstance(found, OperatorCall):
                return found
            call = found
        return call

    def _reshape(self, call: OperatorCall, kind: TensorType) -> GraphExpr | None:
        """Reshapes of reshapes, of constants, and to the same shape."""
        if call.op not in RESHAPES:
            return None
        source = call.args[0]
        inner = self.definition(source)
        if isinstance(inner, OperatorCall) and inner.op in RESHAPES:
            source = inner.args[0]
        if same_type(type_of(source, self.functions), kind):
            return source
        shape = dims.constants(kind.shape)
        if isinstance(source, Constant) and shape is not None:
            return Constant(_reshaped(source.data, shape), source.note)
        if call.op == "reshape" and source is call.args[0]:
            return None
        return OperatorCall("reshape", (source,), {"shape": kind.shape}, call.origin)

    def _permute(self, call: OperatorCall, kind: TensorType) -> GraphExpr | None:
        """Permutations of permutations, those that leave all where it is, and those that only move dimensions of 1."""
        if call.op != "permute_dims":
            return None
        source, axes = call.args[0], _axes(call, kind)
        inner = self.definition(source)
        if isinstance(inner, OperatorCall) and inner.op == "permute_dims":
            source, axes = inner.args[0], tuple(_axes(inner, kind)[a] for a in axes)
        if axes == tuple(range(kind.ndim)):
            return source
        whole = type_of(source, self.functions)
        assert isinstance(whole, TensorType)
        moved = [a for a in axes if dims.constant(whole.shape[a]) != 1]
        if moved == sorted(moved):
            reshape = OperatorCall("reshape", (source,), {"shape": kind.shape}, call.origin)
            return self._reshape(reshape, kind) or reshape
        return None if source is call.args[0] else replace(call, args=(source,), attrs={"axes": axes})

    def _spread(self, call: OperatorCall, kind: TensorType) -> GraphExpr | None:
        """Operators stretch their operands by themselves: ``broadcast_to`` before one is left out."""
        row = operators.get(call.op)
        if row.kind != "broadcast" or call.op == "broadcast_to" or len(call.args) < 2:
            return None
        changed = False
        for n, arg in enumerate(call.args):
            inner = self.definition(arg)
            if not isinstance(inner, OperatorCall) or inner.op != "broadcast_to":
                continue
            without = replace(call, args=(*call.args[:n], inner.args[0], *call.args[n + 1 :]))
            try:
                fits = same_type(type_of(without, self.functions), kind)
            except InvalidModule:
                fits = False
            if fits:
                call, changed = without, True
        return call if changed else None


def _neutral(call: OperatorCall, kind: TensorType) -> GraphExpr | None:
    """The operand that a call gives as it is."""
    for n, arg in enumerate(call.args):
        if _is_kept(call, n, kind) and same_type(type_of(arg, {}), kind):
            return arg
    return None


def _is_kept(call: OperatorCall, n: int, kind: TensorType) -> bool:
    """Whether the call gives the elements of its ``n``-th operand as they are, if it is of the call's type."""
    match call.op:
        case "astype" | "broadcast_to":
            return True
        case "concat":
            return len(call.args) == 1
        case "clip":
            attrs = operators.get("clip").complete(call.attrs)
            return attrs["min"] is None and attrs["max"] is None
        case "add":
            # x + 0.0 is 0.0 where x is -0.0
            return _is_number(call.args[1 - n], -0.0 if dt.is_float(kind.dtype) else 0)
        case "subtract":
            return n == 0 and _is_number(call.args[1], 0.0 if dt.is_float(kind.dtype) else 0)
        case "multiply":
            return _is_number(call.args[1 - n], 1)
        case "divide":
            return n == 0 and _is_number(call.args[1], 1)
        case "where":
            condition = call.args[0]
            if not isinstance(condition, Constant) or not is_immediate(condition.data):
                return False
            return n == (1 if condition.data.array.reshape(-1)[0] else 2)
        case _:
            return False


def _is_number(arg: GraphExpr, number: float) -> bool:
    """True for a constant of one element that is ``number``, its sign included."""
    if not isinstance(arg, Constant) or not is_immediate(arg.data):
        return False
    found = arg.data.array.reshape(-1)[0].item()
    return bool(found == number) and (found != 0 or math.copysign(1, found) == math.copysign(1, number))


def _reshaped(data: ConstantData, shape: tuple[int, ...]) -> ConstantData:
    """The same content under another shape; where it is not here, it keeps its digest."""
    if not data.known:
        return ConstantData(data.dtype, shape, digest=data.digest)
    return ConstantData(data.dtype, shape, load=lambda: data.array)


def _axes(call: OperatorCall, kind: TensorType) -> tuple[int, ...]:
    axes = operators.get("permute_dims").complete(call.attrs)["axes"]
    return tuple(range(kind.ndim))[::-1] if axes is None else dims.axes(axes, kind.ndim)


def _key(value: GraphExpr) -> Hashable:
    """Equal for calls that give the same; None for what is not compared."""
    if isinstance(value, TupleItem):
        return ("item", _atom(value.value), value.index)
    if not isinstance(value, OperatorCall):
        return None
    attrs = operators.get(value.op).complete(value.attrs)
    return (value.op, tuple(map(_atom, value.args)), tuple((name, _attribute(v)) for name, v in attrs.items()))


def _atom(atom: GraphExpr) -> Hashable:
    return ("constant", atom.data) if isinstance(atom, Constant) else atom


def _attribute(value: Any) -> Hashable:
    if isinstance(value, tuple):
        return tuple(map(_attribute, value))
    if isinstance(value, Expr):
        return structural_key(dims.dim(value))
    return (type(value).__name__, repr(value))  # 0.0, -0.0, 0 and False are four things, nan is one
