"""What values of a graph function are when it is lowered: memory, seen as one tensor or several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crossfarm.errors import BuildFailed, InvalidModule
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.types import TensorType, Type
from crossfarm.ir.visitor import substitute, walk


@dataclass(eq=False)
class Memory:
    """Where a tensor is.

    Attributes:
        name: for the buffer.
        type: of what was put there first; views may see it otherwise.
        buffer: None until it is decided.
    """

    name: str
    type: TensorType
    buffer: Buffer | None = None

    def place(self) -> Buffer:
        """The buffer, from now on a fixed one."""
        if self.buffer is None:
            self.buffer = Buffer(self.name, self.type.shape, self.type.dtype)
        return self.buffer


@dataclass(frozen=True)
class TensorValue:
    """A tensor: memory under a type."""

    memory: Memory
    type: TensorType


@dataclass(frozen=True)
class TupleValue:
    """Several values."""

    fields: tuple[Value, ...]


@dataclass(frozen=True)
class NumberValue:
    """A number that is no tensor."""

    expr: Expr


Value = TensorValue | TupleValue | NumberValue


def flat(values: Iterable[Value]) -> list[TensorValue | NumberValue]:
    """The tensors and numbers among ``values``, tuples opened."""
    found: list[TensorValue | NumberValue] = []
    for value in values:
        found.extend(flat(value.fields) if isinstance(value, TupleValue) else [value])
    return found


class Sizes:
    """The symbolic sizes of a function: those that its parameters define, and those defined in terms of them."""

    def __init__(self, function: str, params: Sequence[Type]) -> None:
        self._function = function
        self._known = {d for t in params if isinstance(t, TensorType) for d in t.shape if isinstance(d, Var)}
        self._defined: dict[Var, Expr] = {}

    def define(self, size: Var, value: Expr) -> bool:
        """Lets ``size`` be ``value`` from here on; False, and nothing happens, where it is known already."""
        if size in self._known or size in self._defined:
            return False
        self._defined[size] = value
        return True

    def dim(self, value: Expr) -> Expr:
        """``value`` in terms of what parameters define. Raises InvalidModule for a size that nothing defines."""
        result = dims.dim(substitute(value, self._defined))
        for var in walk(result):
            if isinstance(var, Var) and var not in self._known:
                raise InvalidModule(
                    f"function {self._function!r} uses a size {var.name!r} that no parameter defines",
                    hint="let a parameter have it as a dimension of its own",
                )
        return result

    def type(self, kind: Type, what: str) -> TensorType:
        """The type in such terms. Raises BuildFailed, naming ``what``, where it is no tensor's."""
        if not isinstance(kind, TensorType):
            raise BuildFailed(
                f"{what} of function {self._function!r} is a {type(kind).__name__}, not a tensor",
                hint="give each tensor as a parameter of its own, and numbers as tensors without dimensions",
            )
        return TensorType(tuple(self.dim(d) for d in kind.shape), kind.dtype)
