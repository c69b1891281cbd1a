"""Index maps: where an element of a layout goes in another one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Union

from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.ops import Operand, as_expr

#: What users may give: ``lambda i, j: [i // 4, j, i % 4]``, or a map.
IndexMapLike = Union["IndexMap", Callable[..., Sequence[Operand]]]


@dataclass(frozen=True)
class IndexMap:
    """``inputs`` → ``outputs``: each output an expression of the inputs alone."""

    inputs: tuple[Var, ...]
    outputs: tuple[Expr, ...]

    @classmethod
    def of(cls, source: IndexMapLike, ndim: int, dtype: str = "int32") -> IndexMap:
        """A map as it is, or what a callable gives for ``ndim`` fresh Vars named as its parameters."""
        if isinstance(source, IndexMap):
            return source
        names = [p.name for p in inspect.signature(source).parameters.values() if p.kind is not p.VAR_POSITIONAL]
        names += [f"i{position}" for position in range(len(names), ndim)]
        inputs = tuple(Var(name, dtype) for name in names[:ndim])
        return cls(inputs, tuple(as_expr(output) for output in source(*inputs)))
