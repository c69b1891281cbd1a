"""Operators on small constants whose content is here are computed when the module is built.

Only results of one element take the place of what computed them: they are written into programs. A larger result would
be content that nobody but the compiler has, who passes on none; it is left to be computed on the device
(``lift_constants``), though what is computed from it may fold in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compiler_service.passes.graph.rewrite import DIVISIONS, Rewriter, map_graph_functions
from crossfarm.errors import Error
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import Constant, GraphExpr, GraphVar, OperatorCall
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.module import AnyFunction, IRModule

if TYPE_CHECKING:
    from crossfarm.target import Target

#: What is folded is at most so large, operands and results. Larger constants are not looked at even where they are
#: here: a module is to become the same code wherever its weights are.
SMALL_BYTES = 4096


@dataclass(frozen=True)
class FoldConstants:
    """Calls of operators on known constants of at most SMALL_BYTES, by the operators' references."""

    name: ClassVar[str] = "fold_constants"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_graph_functions(module, lambda _, function: _Folder(module.functions).mutate_function(function))


class _Folder(Rewriter):
    def __init__(self, functions: Mapping[str, AnyFunction]) -> None:
        super().__init__(functions)
        self._contents: dict[GraphVar, ConstantData] = {}

    def rewrite(self, var: GraphVar, value: GraphExpr) -> GraphExpr:
        data = self._folded(value, var.type) if isinstance(value, OperatorCall) else None
        if data is None:
            return value
        if data.array.size == 1:
            return Constant(data)
        self._contents[var] = data
        return value

    def _folded(self, call: OperatorCall, kind: object) -> ConstantData | None:
        """The content of the call's result; None where it cannot be known, or is not small."""
        inputs = [data for a in call.args if (data := self._content(a)) is not None]
        if not isinstance(kind, TensorType) or len(inputs) < len(call.args):
            return None
        shape = dims.constants(kind.shape)
        if shape is None or np.prod(shape, dtype=object) * dt.itemsize(kind.dtype) > SMALL_BYTES:
            return None
        if call.op in DIVISIONS and not dt.is_float(kind.dtype) and not inputs[1].array.all():
            return None  # it fails when the program runs, and says so then
        row = operators.get(call.op)
        attrs = row.complete(call.attrs)
        if any(isinstance(part, Expr) for part in _parts(attrs)):
            return None
        try:
            with np.errstate(all="ignore"):
                (result,) = row.reference([data.array for data in inputs], attrs)
        except (Error, ArithmeticError):
            return None  # so it does when the program runs
        found = ConstantData.of(np.asarray(result))
        assert (found.dtype, found.shape) == (kind.dtype, shape), f"{call.op}: its reference gives another type"
        return found

    def _content(self, arg: GraphExpr) -> ConstantData | None:
        if isinstance(arg, Constant):
            return arg.data if arg.data.known and arg.data.nbytes <= SMALL_BYTES else None
        return self._contents.get(arg) if isinstance(arg, GraphVar) else None


def _parts(value: Any) -> list[Any]:
    """The plain values in an attribute."""
    if isinstance(value, Mapping):
        return [part for item in value.values() for part in _parts(item)]
    return [part for item in value for part in _parts(item)] if isinstance(value, tuple) else [value]
