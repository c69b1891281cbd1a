"""What a name of an ONNX graph stands for while the graph is read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crossfarm.ir import dtype as dt
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.expr import GraphExpr
from crossfarm.ir.graph.types import TensorType

Array = np.ndarray[Any, np.dtype[Any]]
#: Values of at most this many elements are worked out while the model is read.
SMALL = 4096


@dataclass(eq=False)
class Tensor:
    """A tensor: of the function, known at compile time, or both.

    Attributes:
        type: dtype and shape.
        content: its elements where they are known: an array of the dtype, or, where symbolic sizes are among them, an
            array of objects, each an int or an int64 Expr (integers and bools alone, or floats that are such sizes).
        expr: the value in the function; None where ``content`` has not been needed there yet.
        sources: names of the model's inputs whose elements it is made of; shapes are no elements.
    """

    type: TensorType
    content: Array | None = None
    expr: GraphExpr | None = None
    sources: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, content: Array, dtype: str | None = None) -> Tensor:
        """A known tensor; ``dtype`` says what an array of objects holds."""
        return cls(TensorType(dims.dims(content.shape), dtype or dt.from_numpy(content.dtype)), content)

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def shape(self) -> tuple[dims.Dim, ...]:
        """Plain ints where constant."""
        return tuple(d if (c := dims.constant(d)) is None else c for d in self.type.shape)

    @property
    def ndim(self) -> int:
        return self.type.ndim

    @property
    def symbolic(self) -> bool:
        """True where the content is known in terms of symbolic sizes."""
        return self.content is not None and self.content.dtype == object

    @property
    def numeric(self) -> bool:
        """True where all of the content is known as numbers."""
        return self.content is not None and self.content.dtype != object

    @property
    def small(self) -> bool:
        """True where it is known and to be worked with at compile time."""
        return self.content is not None and self.content.size <= SMALL

    @property
    def static_size(self) -> int | None:
        """How many elements it has, None where that is symbolic."""
        known = dims.constants(self.type.shape)
        return None if known is None else math.prod(known)


@dataclass(eq=False)
class Sequence:
    """A sequence of tensors, whose length is known at compile time."""

    items: tuple[Tensor, ...]


@dataclass(eq=False)
class Optional:
    """A value that may be absent; whether it is, is known at compile time."""

    value: Value | None


Value = Tensor | Sequence | Optional
