"""Batch norms by constants, and other multiples and sums a channel, become part of the weights before them.

::

    batch_norm(x)           →  x · s + t         s = gamma / √(variance + epsilon), t = beta − mean · s
    conv(x, w) · s          →  conv(x, w · s)    where the convolution is used nowhere else
    (conv(x, w) + b) · s    →  conv(x, w · s) + b · s
    (conv(x, w) + b) + t    →  conv(x, w) + (b + t)

All that is on constants alone is computed once, where the artifact is loaded (``lift_constants``). The same holds for
``matmul`` by constants. Results differ from those before by roundings: each weight is rounded once more, so a result
is as far from the exact one as a sum of so many products is anyway. In float16 and bfloat16 that is visible, so only
float32 and float64 are changed; batch norms in others stay one operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compiler_service.passes.graph.rewrite import Rewriter, fixed_variables, map_graph_functions
from crossfarm.ir import dtype as dt
from crossfarm.ir.graph import dims, operators, visit
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import Constant, Function, GraphExpr, GraphVar, OperatorCall
from crossfarm.ir.graph.infer import type_of
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.stmt import AttrValue

if TYPE_CHECKING:
    from crossfarm.target import Target

_DTYPES = ("float32", "float64")
_CONVOLUTIONS = ("nn.conv1d", "nn.conv2d", "nn.conv3d")
_TRANSPOSED = tuple(f"{name}_transpose" for name in _CONVOLUTIONS)
_CONTRACTIONS = (*_CONVOLUTIONS, *_TRANSPOSED, "matmul")


@dataclass(frozen=True)
class FoldBatchNorm:
    """Scales and shifts of channels by constants into weights and biases, as operators on constants."""

    name: ClassVar[str] = "fold_batch_norm"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_graph_functions(module, lambda _, f: _Folder(module.functions, f).mutate_function(f))


class _Folder(Rewriter):
    def __init__(self, functions: Mapping[str, AnyFunction], function: Function) -> None:
        super().__init__(functions)
        self._fixed = fixed_variables(visit.bindings(function.body))
        self._uses = visit.uses(function)

    def rewrite(self, var: GraphVar, value: GraphExpr) -> GraphExpr:
        if var in self._fixed or not isinstance(value, OperatorCall) or not isinstance(var.type, TensorType):
            return value
        if var.type.dtype not in _DTYPES:
            return value
        if value.op == "nn.batch_norm" and all(map(self._is_fixed, value.args[1:])):
            return self._batch_norm(value, var.type)
        if value.op in ("multiply", "add"):
            return self._combined(value) or value
        return value

    def _batch_norm(self, call: OperatorCall, kind: TensorType) -> OperatorCall:
        """As a multiple and a sum, each combined with what is before it where that can be."""
        attrs = operators.get(call.op).complete(call.attrs)
        behind = kind.ndim - 1 - dims.axis(attrs["axis"], kind.ndim)
        data, gamma, beta, mean, variance = call.args
        epsilon = Constant(ConstantData.of(np.asarray(attrs["epsilon"], dt.to_numpy(kind.dtype))))
        scale = self._op("divide", gamma, self._op("sqrt", self._op("add", variance, epsilon)))
        shift = self._op("subtract", beta, self._op("multiply", mean, scale))
        scale, shift = (self._reshaped(v, (-1, *[1] * behind)) for v in (scale, shift))
        scaled = OperatorCall("multiply", (data, scale), {}, call.origin)
        # the product is new: it is used by the sum alone
        product = self.bind(self._combined(scaled) or scaled, "scaled")
        assert isinstance(product, GraphVar)
        self._uses[product] = 1
        shifted = OperatorCall("add", (product, shift), {}, call.origin)
        return self._combined(shifted) or shifted

    def _combined(self, call: OperatorCall) -> OperatorCall | None:
        """A multiple or sum by a constant as part of what it is of; None where that is no contraction, or one whose
        result is used elsewhere too."""
        for data, constant in (call.args, call.args[::-1]):
            if not isinstance(data, GraphVar) or self._uses[data] != 1 or not self._is_fixed(constant):
                continue
            before = self.definition(data)
            if not isinstance(before, OperatorCall):
                continue
            if before.op == "add":
                found = self._after_sum(call, before, constant)
            else:
                found = self._after_product(call, before, constant, data)
            if found is not None:
                return found
        return None

    def _after_sum(self, call: OperatorCall, before: OperatorCall, constant: GraphExpr) -> OperatorCall | None:
        """Combined with a contraction's sum with a bias."""
        for product, bias in (before.args, before.args[::-1]):
            if not isinstance(product, GraphVar) or not self._is_fixed(bias) or self._uses[product] != 1:
                continue
            contraction = self.definition(product)
            if not isinstance(contraction, OperatorCall) or contraction.op not in _CONTRACTIONS:
                continue
            if not all(self._is_by_channel(contraction.op, product, c) for c in (bias, constant)):
                return None
            if call.op == "add":
                bias = self._op("add", bias, constant)
                return replace(before, args=(product, bias), origin=_origins(before, call))
            scaled = self._after_product(call, contraction, constant, product)
            if scaled is None:
                return None
            new = self.bind(scaled, product.name)
            assert isinstance(new, GraphVar)
            self._uses[new] = 1
            bias = self._op("multiply", bias, constant)
            return replace(before, args=(new, bias), origin=_origins(before, call))
        return None

    def _after_product(
        self, call: OperatorCall, before: OperatorCall, constant: GraphExpr, product: GraphVar
    ) -> OperatorCall | None:
        """A contraction whose weights are multiplied; None where each result has not a factor of its own weights'."""
        if call.op != "multiply" or before.op not in _CONTRACTIONS or not self._is_fixed(before.args[1]):
            return None
        if not self._is_by_channel(before.op, product, constant):
            return None
        weights = type_of(before.args[1], self.functions)
        assert isinstance(weights, TensorType)
        attrs = operators.get(before.op).complete(before.attrs)
        if attrs["out_dtype"] not in (None, weights.dtype):
            return None
        factor = self._factor(before.op, attrs, weights, constant)
        if factor is None:
            return None
        scaled = self._op("multiply", before.args[1], factor)
        return replace(before, args=(before.args[0], scaled), origin=_origins(before, call))

    def _factor(self, op: str, attrs: Mapping[str, Any], weights: TensorType, constant: GraphExpr) -> GraphExpr | None:
        """A constant by channels as it stands beside the weights."""
        ones = [1] * (weights.ndim - 1)
        if op in _CONVOLUTIONS:
            return self._reshaped(constant, (-1, *ones))
        if op in _TRANSPOSED:
            return self._reshaped(constant, (1, -1, *ones[1:])) if attrs["groups"] == 1 else None
        if weights.ndim < 2:
            return None
        return self._reshaped(constant, (-1, 1) if attrs["transpose_b"] else (-1,))

    def _is_fixed(self, expr: GraphExpr) -> bool:
        return isinstance(expr, Constant) or expr in self._fixed

    def _is_by_channel(self, op: str, data: GraphVar, constant: GraphExpr) -> bool:
        """Whether a constant has one element a channel of what ``op`` gives, or one at all."""
        kind = type_of(constant, self.functions)
        assert isinstance(kind, TensorType)
        assert isinstance(data.type, TensorType)
        channel = data.type.ndim - 1 if op == "matmul" else 1
        before = data.type.ndim - kind.ndim
        return before >= 0 and all(
            dims.constant(d) == 1 or (before + n == channel and dims.same(d, data.type.shape[channel]))
            for n, d in enumerate(kind.shape)
        )

    def _reshaped(self, value: GraphExpr, shape: tuple[int, ...]) -> GraphExpr:
        """A constant with all its elements along the dimension that is -1."""
        kind = type_of(value, self.functions)
        assert isinstance(kind, TensorType)
        count = dims.constant(dims.product(kind.shape))
        wanted = tuple(count if d == -1 else d for d in shape)
        if dims.constants(kind.shape) == wanted:
            return value
        return self._op("reshape", value, shape=wanted)

    def _op(self, name: str, *args: GraphExpr, **attrs: AttrValue) -> GraphExpr:
        """A new value that depends on constants alone."""
        value = self.bind(OperatorCall(name, args, attrs), name)
        assert isinstance(value, GraphVar)
        self._fixed.add(value)
        return value


def _origins(*calls: OperatorCall) -> str:
    return ", ".join(dict.fromkeys(c.origin for c in calls if c.origin))
