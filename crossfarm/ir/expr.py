"""Expressions: immutable trees; ``Var`` is compared by identity, structure by ``crossfarm.ir.structural``.

Every node has ``dtype`` (see ``crossfarm.ir.dtype``). Constructors here check nothing but what would make the node
meaningless; the rules are the verifier's (``crossfarm.ir.verify``). ``crossfarm.ir.ops`` has the checked helpers
that unify dtypes as TVMScript does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossfarm.ir import dtype as dt

if TYPE_CHECKING:
    from crossfarm.ir.buffer import Buffer

#: Binary operators by name. Integer ``div`` and ``mod`` truncate toward zero (C), ``floordiv`` and ``floormod`` floor.
ARITHMETIC = ("add", "sub", "mul", "div", "mod", "floordiv", "floormod", "min", "max")
BITWISE = ("bitand", "bitor", "bitxor", "shl", "shr")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
LOGICAL = ("and", "or")
BINARY_OPS = (*ARITHMETIC, *BITWISE, *COMPARISONS, *LOGICAL)


class Expr:
    """Base of all expressions. Each has ``dtype``, a field in some and derived in others."""

    if TYPE_CHECKING:

        @property
        def dtype(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Var(Expr):
    """A variable: loop, block axis, let binding, scalar parameter or symbolic size. Two with one name are two."""

    name: str
    dtype: str = "int32"


@dataclass(frozen=True, eq=False)
class IntImm(Expr):
    """Integer or bool constant; ``value`` fits the dtype."""

    value: int
    dtype: str = "int32"


@dataclass(frozen=True, eq=False)
class FloatImm(Expr):
    """Float constant; ``value`` is a Python float (may be inf or nan), rounded to the dtype where it is used."""

    value: float
    dtype: str = "float32"


@dataclass(frozen=True, eq=False)
class StringImm(Expr):
    """A string, as the name in ``call_extern`` or a value in annotations."""

    value: str

    @property
    def dtype(self) -> str:
        return "handle"


@dataclass(frozen=True, eq=False)
class Binary(Expr):
    """``a op b``, op one of BINARY_OPS; both sides of one dtype; comparisons and logic give bool (with lanes)."""

    op: str
    a: Expr
    b: Expr

    @property
    def dtype(self) -> str:
        if self.op in COMPARISONS or self.op in LOGICAL:
            return dt.with_lanes("bool", dt.lanes_of(self.a.dtype))
        return self.a.dtype


@dataclass(frozen=True, eq=False)
class Not(Expr):
    """Logical negation of a bool."""

    a: Expr

    @property
    def dtype(self) -> str:
        return self.a.dtype


@dataclass(frozen=True, eq=False)
class Cast(Expr):
    """Value conversion, C rules: float → int truncates, to bool compares with zero."""

    value: Expr
    dtype: str


@dataclass(frozen=True, eq=False)
class Select(Expr):
    """``condition ? true_value : false_value``; both values may be evaluated (``if_then_else`` evaluates one)."""

    condition: Expr
    true_value: Expr
    false_value: Expr

    @property
    def dtype(self) -> str:
        return self.true_value.dtype


@dataclass(frozen=True, eq=False)
class Let(Expr):
    """``body`` with ``var`` bound to ``value``."""

    var: Var
    value: Expr
    body: Expr

    @property
    def dtype(self) -> str:
        return self.body.dtype


@dataclass(frozen=True, eq=False)
class Call(Expr):
    """An intrinsic of ``crossfarm.ir.intrinsics`` (``exp``, ``if_then_else``, ``call_extern``, …) on ``args``."""

    op: str
    args: tuple[Expr, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class BufferLoad(Expr):
    """``buffer[indices]``; the last index may be a vector (Ramp), then so is the value."""

    buffer: Buffer
    indices: tuple[Expr, ...]

    @property
    def dtype(self) -> str:
        lanes = max((dt.lanes_of(i.dtype) for i in self.indices), default=1)
        return dt.with_lanes(self.buffer.dtype, lanes)


@dataclass(frozen=True, eq=False)
class Ramp(Expr):
    """The vector ``base, base + stride, …`` of ``lanes`` lanes."""

    base: Expr
    stride: Expr
    lanes: int

    @property
    def dtype(self) -> str:
        return dt.with_lanes(self.base.dtype, self.lanes)


@dataclass(frozen=True, eq=False)
class Broadcast(Expr):
    """``value`` in each of ``lanes`` lanes."""

    value: Expr
    lanes: int

    @property
    def dtype(self) -> str:
        return dt.with_lanes(self.value.dtype, self.lanes)


@dataclass(frozen=True, eq=False)
class Range:
    """``min`` up to, not including, ``min + extent``: a block axis' domain or one dimension of a region."""

    min: Expr
    extent: Expr
