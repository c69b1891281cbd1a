"""Makes operators of the function from known and unknown values; what is known is worked out on the spot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.frontends.onnx import symbolic
from crossfarm.frontends.onnx.value import SMALL, Tensor
from crossfarm.ir import dtype as dt
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import Constant, GraphExpr, GraphVar, Seq, TupleExpr
from crossfarm.ir.graph.types import TensorType, TupleType

Array = np.ndarray[Any, np.dtype[Any]]


class Emitter:
    """The function in the making.

    Attributes:
        builder: of the innermost sequence of bindings.
    """

    def __init__(self) -> None:
        self.builder = Builder()
        self._bound: dict[int, tuple[Tensor, GraphExpr]] = {}  # sizes as tensors, by the value's identity

    def op(self, name: str, args: Sequence[Tensor], attrs: dict[str, Any], origin: str = "") -> list[Tensor]:
        """The results of an operator: known ones where the arguments are known and small.

        Raises:
            InvalidModule: the arguments do not fit.
        """
        row = operators.get(name)
        row.check_inputs(len(args))
        complete = row.complete(attrs)
        sources = frozenset[str]().union(*(a.sources for a in args))
        if args and all(a.small for a in args):
            types = row.infer([a.type for a in args], complete)
            contents = self._worked_out(name, args, complete, types)
            if contents is not None:
                return [Tensor(t, c, None, sources) for t, c in zip(types, contents)]
        value = self.builder.op(name, *(self.expr(a) for a in args), origin=origin, **attrs)
        results = self.builder.items(value) if isinstance(value.type, TupleType) else [value]
        return [tensor_of(r, sources) for r in results]

    def _worked_out(
        self, name: str, args: Sequence[Tensor], attrs: dict[str, Any], types: Sequence[TensorType]
    ) -> list[Array] | None:
        shapes = [dims.constants(t.shape) for t in types]
        if any(shape is None or math.prod(shape) > SMALL for shape in shapes):
            return None
        if all(a.numeric for a in args):
            row = operators.get(name)
            left_out: list[Any] = [None] * (0 if row.variadic else len(row.inputs) - len(args))
            with np.errstate(all="ignore"):
                found = row.reference([*(a.content for a in args if a.content is not None), *left_out], attrs)
            return [_as(np.asarray(f), t.dtype).reshape(s) for f, t, s in zip(found, types, shapes) if s is not None]
        contents = [a.content for a in args if a.content is not None]
        known = symbolic.evaluate(name, contents, [a.dtype for a in args], attrs, [t.dtype for t in types])
        if known is None:
            return None
        return [_as(k, t.dtype) if symbolic.is_numeric(k) else k for k, t in zip(known, types)]

    def constant(self, content: Any, dtype: str | None = None) -> Tensor:
        """A known tensor of numbers, or of sizes where ``content`` is an array of objects."""
        array = np.asarray(content) if dtype is None else np.asarray(content, dt.to_numpy(dtype))
        return Tensor.of(array)

    def sizes(self, values: Sequence[dims.Dim], shape: tuple[int, ...] | None = None) -> Tensor:
        """Sizes as a known int64 tensor, a vector unless ``shape`` is given."""
        array = np.empty(len(values), object)
        array[:] = [v if (c := dims.constant(v)) is None else c for v in values]
        if symbolic.is_numeric(array):
            array = array.astype(np.int64)
        return Tensor.of(array.reshape(array.shape if shape is None else shape), "int64")

    def expr(self, value: Tensor) -> GraphExpr:
        """The value in the function: what is known becomes a constant, sizes a tensor that is made when it runs."""
        if value.expr is not None:
            return value.expr
        assert value.content is not None
        if value.numeric:
            value.expr = Constant(self.builder.constant(value.content).data)
            return value.expr
        if id(value) not in self._bound:
            self._bound[id(value)] = (value, self._size_tensor(value))
        return self._bound[id(value)][1]

    def _size_tensor(self, value: Tensor) -> GraphExpr:
        assert value.content is not None
        found = self.builder.op("shape_to_tensor", shape=tuple(value.content.reshape(-1)))
        if value.dtype != "int64":
            found = self.builder.op("astype", found, dtype=value.dtype)
        if value.ndim != 1:
            found = self.builder.op("reshape", found, shape=value.content.shape)
        return found

    @contextmanager
    def branch(self) -> Iterator[None]:
        """What is bound inside is of a sequence of its own; end it with ``seq``."""
        outer, bound = self.builder, self._bound
        self.builder, self._bound = Builder(), dict(bound)
        yield
        self.builder, self._bound = outer, bound

    def seq(self, results: Sequence[Tensor]) -> Seq:
        """The sequence so far, ending in ``results``: a tuple unless there is one."""
        exprs = [self.expr(r) for r in results]
        return self.builder.seq(exprs[0] if len(exprs) == 1 else TupleExpr(tuple(exprs)))


def tensor_of(var: GraphVar, sources: frozenset[str] = frozenset()) -> Tensor:
    """A variable of the function as a value that is not known."""
    if not isinstance(var.type, TensorType):
        raise InvalidModule(f"{var.name} is no tensor")
    return Tensor(var.type, None, var, sources)


def _as(values: Array, dtype: str) -> Array:
    wanted = dt.to_numpy(dtype)
    return values if values.dtype == wanted else values.astype(wanted)
