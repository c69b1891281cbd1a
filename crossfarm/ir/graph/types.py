"""Types of values in graph functions: what is known of a value before the program runs."""

from __future__ import annotations

from dataclasses import dataclass

from crossfarm.ir.expr import Expr


@dataclass(frozen=True, eq=False)
class TensorType:
    """A tensor of known rank.

    Attributes:
        shape: one int64 Expr a dimension: constants, symbolic sizes (Vars) and arithmetic of them. A bare Var in a
            parameter's type, or in a ``MatchCast``, defines that size; () is a scalar.
        dtype: of its elements.
    """

    shape: tuple[Expr, ...]
    dtype: str

    @property
    def ndim(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, eq=False)
class TupleType:
    """Several values as one."""

    fields: tuple[Type, ...]


@dataclass(frozen=True, eq=False)
class ShapeType:
    """A shape as a value: one int64 Expr a dimension."""

    values: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class PrimType:
    """A single number that is no tensor."""

    dtype: str


#: Named classes rather than a base: a type is one of these four.
Type = TensorType | TupleType | ShapeType | PrimType
TYPES = (TensorType, TupleType, ShapeType, PrimType)
