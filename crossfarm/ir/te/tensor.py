"""Tensors: what is given, and what is computed from others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Expr, IntImm, Range, Var
from crossfarm.ir.stmt import Annotations, IterVar
from crossfarm.ir.te.reduction import Reduction
from crossfarm.ir.te.value import Operand, Value, unwrap

#: What a subscript may be: an element of each dimension, or a part of it.
Index = Operand | slice


@dataclass(frozen=True, eq=False)
class Computation:
    """What one ``compute`` says: for each point of ``axes`` the ``results``, one for each of its tensors.

    Attributes:
        axes: one a dimension, over all of it.
        results: values in terms of the axes, or one reduction of as many parts.
        reads: the tensors that they use, in order of first use.
    """

    name: str
    axes: tuple[IterVar, ...]
    results: tuple[Expr, ...] | Reduction
    reads: tuple[Tensor, ...]
    attrs: Annotations


class _Indexed:
    """What can be indexed: whole tensors and parts of them."""

    shape: tuple[Expr, ...]
    name: str

    def __getitem__(self, key: Index | tuple[Index, ...]) -> Any:
        """One element as a Value; with fewer indices than dimensions, or with slices, a View.

        ``A[i][j]`` is ``A[i, j]``. Indices count from 0, and negative constants do not count from the end.

        Raises:
            InvalidModule: more indices than dimensions, an index that is no integer, or a constant one outside.
        """
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > len(self.shape):
            raise InvalidModule(f"tensor {self.name} has {len(self.shape)} dimensions, not {len(keys)}")
        keys = (*keys, *(slice(None) for _ in self.shape[len(keys) :]))
        view = View(self, tuple(_part(self.name, axis, k, d) for axis, (k, d) in enumerate(zip(keys, self.shape))))
        return view if view.shape else view.element(())

    def __iter__(self) -> NoReturn:
        raise InvalidModule(f"tensor {self.name} cannot be iterated over", hint="index it: A[i, j]")

    def element(self, indices: tuple[Expr, ...]) -> Value:
        """The element at one index for each dimension."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Tensor(_Indexed):
    """A placeholder, or one result of a ``compute``.

    Attributes:
        buffer: where its elements are in the function that is made.
        computation: how they come about; None for a placeholder.
        position: which of the computation's results this is.
    """

    buffer: Buffer
    computation: Computation | None = None
    position: int = 0

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.buffer.name

    @property
    def shape(self) -> tuple[Expr, ...]:  # type: ignore[override]
        return self.buffer.shape

    @property
    def dtype(self) -> str:
        return self.buffer.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def element(self, indices: tuple[Expr, ...]) -> Value:
        _note(self)
        return Value(BufferLoad(self.buffer, indices))

    def __repr__(self) -> str:
        sizes = ", ".join(str(d.value) if isinstance(d, IntImm) else getattr(d, "name", "…") for d in self.shape)
        return f"<te tensor {self.name}({sizes}) {self.dtype}>"


@dataclass(frozen=True, eq=False)
class View(_Indexed):
    """Part of a tensor, never stored: ``A[i]``, ``A[2:8, j]``.

    Attributes:
        parts: for each dimension of ``source`` an element, or start, step and extent of what is left of it.
    """

    source: _Indexed
    parts: tuple[Expr | tuple[Expr, int, Expr], ...] = field(repr=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.source.name

    @property
    def shape(self) -> tuple[Expr, ...]:  # type: ignore[override]
        return tuple(part[2] for part in self.parts if isinstance(part, tuple))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def element(self, indices: tuple[Expr, ...]) -> Value:
        rest = iter(indices)
        whole = []
        for part in self.parts:
            if isinstance(part, tuple):
                start, step, _ = part
                index = next(rest)
                index = index if step == 1 else ops.mul(index, step)
                whole.append(index if isinstance(start, IntImm) and start.value == 0 else ops.add(index, start))
            else:
                whole.append(part)
        return self.source.element(tuple(whole))


def placeholder(shape: Sequence[Operand], dtype: str = "float32", name: str = "placeholder") -> Tensor:
    """A tensor that the function is given. Raises InvalidModule for a shape or dtype that cannot be."""
    if not dt.is_valid(dtype) or dt.lanes_of(dtype) != 1 or dtype == "handle":
        raise InvalidModule(
            f"placeholder {name}: {dtype!r} is no dtype of a tensor", hint=f"use {', '.join(dt.SCALARS)}"
        )
    return Tensor(Buffer(name, _shape(shape, f"placeholder {name}"), dtype))


def compute(
    shape: Sequence[Operand],
    fcompute: Callable[..., Any],
    name: str = "compute",
    attrs: Annotations | None = None,
) -> Any:
    """A tensor whose element at each index is what ``fcompute`` says.

    Args:
        shape: extents: integers, or values of ``te.var``.
        fcompute: takes one index a dimension (or ``*indices``); gives a value, a reduction, or a tuple of values for
            several tensors of one shape. It is called once.
        name: of the tensor, and of its block; with several tensors ``name.v0``, ``name.v1``, …
        attrs: annotations of the block.

    Returns:
        Tensor; a tuple of them where fcompute gives several values.

    Raises:
        InvalidModule: fcompute takes another number of indices, or gives what is no value.
    """
    what = f"compute {name}"
    extents = _shape(shape, what)
    axes = tuple(
        IterVar(Var(f"v_{axis}", extent.dtype), Range(ops.const(0, extent.dtype), extent))
        for axis, extent in zip(_axis_names(fcompute, len(extents), what), extents)
    )
    reads: dict[Tensor, None] = {}
    _READING.append(reads)
    try:
        body = fcompute(*(Value(axis.var) for axis in axes))
    finally:
        _READING.pop()
    results = _results(body, what)
    computation = Computation(name, axes, results, tuple(reads), dict(attrs or {}))
    dtypes = [r.dtype for r in (results.values if isinstance(results, Reduction) else results)]
    if len(dtypes) == 1 and not isinstance(body, (tuple, list)):
        return Tensor(Buffer(name, extents, dtypes[0]), computation)
    return tuple(Tensor(Buffer(f"{name}_v{k}", extents, dtype), computation, k) for k, dtype in enumerate(dtypes))


#: The tensors that the compute functions being called have read so far, innermost last.
_READING: list[dict[Tensor, None]] = []


def _note(tensor: Tensor) -> None:
    if _READING:
        _READING[-1][tensor] = None


def _results(body: Any, what: str) -> tuple[Expr, ...] | Reduction:
    if isinstance(body, Reduction):
        return body
    values: Iterable[Any] = body if isinstance(body, (tuple, list)) else (body,)
    results = []
    for value in values:
        if isinstance(value, Reduction):
            raise InvalidModule(
                f"{what}: a reduction beside other results", hint="give it a compute of its own, or use te.comm_reducer"
            )
        if value is None:
            raise InvalidModule(f"{what}: the function returns nothing", hint="return the value of the element")
        results.append(ops.as_expr(unwrap(value)))
    if not results:
        raise InvalidModule(f"{what}: no results")
    return tuple(results)


def _shape(shape: Sequence[Operand], what: str) -> tuple[Expr, ...]:
    if isinstance(shape, (str, Mapping)) or not isinstance(shape, Iterable):
        raise InvalidModule(f"{what}: {shape!r} is no shape", hint="write a tuple of extents: (4, n)")
    extents = []
    for extent in shape:
        raw = unwrap(extent)
        expr = ops.const(raw, "int64") if isinstance(raw, int) and not isinstance(raw, bool) else ops.as_expr(raw)
        if not dt.is_int(expr.dtype) or dt.lanes_of(expr.dtype) != 1:
            raise InvalidModule(f"{what}: an extent is an integer, not {expr.dtype}")
        if isinstance(expr, IntImm) and expr.value < 0:
            raise InvalidModule(f"{what}: an extent of {expr.value}")
        extents.append(expr)
    return tuple(extents)


def _axis_names(fcompute: Callable[..., Any], ndim: int, what: str) -> list[str]:
    names, variadic = [], False
    for parameter in inspect.signature(fcompute).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            variadic = True
        elif parameter.kind is not parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            names.append(parameter.name)
    if len(names) > ndim or (len(names) < ndim and not variadic):
        raise InvalidModule(f"{what}: the function takes {len(names)} indices, the shape has {ndim} dimensions")
    return names + [f"i{k}" for k in range(len(names), ndim)]


def _part(name: str, axis: int, key: Index, extent: Expr) -> Expr | tuple[Expr, int, Expr]:
    if not isinstance(key, slice):
        index = _index(name, axis, key, extent.dtype)
        if isinstance(index, IntImm) and (
            index.value < 0 or (isinstance(extent, IntImm) and index.value >= extent.value)
        ):
            size = extent.value if isinstance(extent, IntImm) else "its size"
            raise InvalidModule(f"index {index.value} is outside dimension {axis} of tensor {name} (0 to {size})")
        return index
    step = 1 if key.step is None else key.step
    if not isinstance(step, int) or step < 1:
        raise InvalidModule(f"a slice of tensor {name} has the step {step!r}", hint="a step is a positive constant")
    start = ops.const(0, extent.dtype) if key.start is None else _index(name, axis, key.start, extent.dtype)
    stop = extent if key.stop is None else _index(name, axis, key.stop, extent.dtype)
    if isinstance(start, IntImm) and isinstance(stop, IntImm):
        largest = extent.value if isinstance(extent, IntImm) else stop.value
        if not 0 <= start.value <= stop.value <= largest:
            raise InvalidModule(
                f"slice {start.value}:{stop.value} is outside dimension {axis} of tensor {name}",
                hint="negative bounds do not count from the end",
            )
        return start, step, ops.const(-(-(stop.value - start.value) // step), extent.dtype)
    length = stop if isinstance(start, IntImm) and start.value == 0 else ops.sub(stop, start)
    return start, step, length if step == 1 else ops.floordiv(ops.add(length, step - 1), step)


def _index(name: str, axis: int, key: Operand, dtype: str) -> Expr:
    raw = unwrap(key)
    if isinstance(raw, int) and not isinstance(raw, bool):
        return ops.const(raw, dtype)
    index = ops.as_expr(raw)
    if not dt.is_int(index.dtype):
        raise InvalidModule(
            f"dimension {axis} of tensor {name} is indexed with {index.dtype}", hint="cast it to an int"
        )
    return index
