"""Constants of one element: numbers that programs have written into them rather than read from memory."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.te import Tensor, Value, const


def is_immediate(data: ConstantData) -> bool:
    """True for one element whose value is here."""
    return math.prod(data.shape) == 1 and data.known


@dataclass(frozen=True, eq=False)
class Immediate(Tensor):
    """A tensor of one element that is nowhere in memory: whoever reads it has the number.

    Attributes:
        value: the number.
    """

    value: bool | int | float = field(kw_only=True)

    @classmethod
    def of(cls, data: ConstantData) -> Immediate:
        """The constant, of one element, as what a row of the operator table takes."""
        return cls(Buffer("immediate", dims.dims(data.shape), data.dtype), value=data.array.reshape(-1)[0].item())

    def element(self, indices: tuple[Expr, ...]) -> Value:
        return const(self.value, self.dtype)


def identifier(name: str) -> str:
    """``name`` as a name of a program's parameter."""
    found = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
    return found if found[0].isalpha() else f"v_{found}"
