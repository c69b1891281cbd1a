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
from crossfarm.ir.visitor import walk

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
        if row.kind == "broadcast" or name == "matmul":
            args = self._fitted(args, name, complete)
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
            try:
                with np.errstate(all="ignore"):
                    found = row.reference([*(a.content for a in args if a.content is not None), *left_out], attrs)
            except MemoryError:  # such as a window over a padding of a terabyte: the device may say so
                return None
            return [_as(np.asarray(f), t.dtype).reshape(s) for f, t, s in zip(found, types, shapes) if s is not None]
        contents = [a.content for a in args if a.content is not None]
        known = symbolic.evaluate(name, contents, [a.dtype for a in args], attrs, [t.dtype for t in types])
        if known is None:
            return None
        return [_as(k, t.dtype) if symbolic.is_numeric(k) else k for k, t in zip(known, types)]

    def _fitted(self, args: Sequence[Tensor], name: str, attrs: dict[str, Any]) -> list[Tensor]:
        """Operands whose sizes must be equal, and are not seen to be, as what they then are: checked when it runs.

        A model has ``past + new`` where it also has ``total``; that they are one number is all that it says by adding
        tensors of these lengths. A size that is not known is never taken for 1.
        """
        shapes = [list(a.shape) for a in args]
        for group in _equal_places(shapes, name, attrs):
            known = [(i, place) for i, place in group if shapes[i][place] != 1]
            sizes = [shapes[i][place] for i, place in known]
            if len(sizes) < 2 or all(dims.same(size, sizes[0]) for size in sizes[1:]):
                continue
            target = min(sizes, key=_weight)
            for i, place in known:
                if dims.constant(shapes[i][place]) is None:
                    shapes[i][place] = target
        return [a if dims.same_shape(a.shape, shape) else self._cast(a, shape) for a, shape in zip(args, shapes)]

    def _cast(self, value: Tensor, shape: Sequence[dims.Dim]) -> Tensor:
        kind = TensorType(dims.dims(shape), value.dtype)
        return tensor_of(self.builder.match_cast(self.expr(value), kind), value.sources)

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


def _equal_places(
    shapes: Sequence[Sequence[dims.Dim]], name: str, attrs: dict[str, Any]
) -> Iterator[list[tuple[int, int]]]:
    """Groups of (operand, dimension) that are stretched to one size, or summed over together."""
    last = 0
    if name == "matmul":
        if any(len(shape) < 2 for shape in shapes):
            return
        yield [(0, len(shapes[0]) - 1 - attrs["transpose_a"]), (1, len(shapes[1]) - 2 + attrs["transpose_b"])]
        last = 2
    for back in range(1 + last, 1 + max(len(shape) for shape in shapes)):
        yield [(i, len(shape) - back) for i, shape in enumerate(shapes) if len(shape) >= back]


def _weight(size: dims.Dim) -> tuple[int, int]:
    """Numbers before sizes, sizes before what is computed of them."""
    if dims.constant(size) is not None:
        return 0, 0
    return 1, sum(1 for _ in walk(dims.dim(size)))


def _as(values: Array, dtype: str) -> Array:
    wanted = dt.to_numpy(dtype)
    return values if values.dtype == wanted else values.astype(wanted)
