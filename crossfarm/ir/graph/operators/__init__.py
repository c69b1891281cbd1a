"""The operators of graph functions by name, one file a family.

Adding one is adding a row to a family's ``OPERATORS``; a new family is a file here and a line below.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from crossfarm.errors import InvalidModule
from crossfarm.ir.graph.operator import Operator
from crossfarm.ir.graph.operators import (
    activation,
    contraction,
    convolution,
    creation,
    elementwise,
    image,
    indexing,
    joining,
    logic,
    normalization,
    pooling,
    reduction,
    sequence,
    shape,
    sorting,
    unary,
)

#: In the order of documents; each file's first line says what its operators do.
FAMILIES = (
    elementwise,
    logic,
    unary,
    activation,
    reduction,
    shape,
    joining,
    creation,
    sequence,
    contraction,
    convolution,
    pooling,
    normalization,
    indexing,
    sorting,
    image,
)

OPERATORS: Mapping[str, Operator] = MappingProxyType({row.name: row for f in FAMILIES for row in f.OPERATORS})
BY_ID: Mapping[int, Operator] = MappingProxyType({row.id: row for row in OPERATORS.values()})
assert len(BY_ID) == len(OPERATORS) == sum(len(f.OPERATORS) for f in FAMILIES), "an operator's name or id is taken"


def get(name: str) -> Operator:
    """The operator ``name``. Raises InvalidModule, naming one that is spelled alike."""
    try:
        return OPERATORS[name]
    except KeyError:
        import difflib

        near = difflib.get_close_matches(name, OPERATORS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see docs/operators.md for those there are"
        raise InvalidModule(f"there is no operator {name!r}", hint=hint) from None
