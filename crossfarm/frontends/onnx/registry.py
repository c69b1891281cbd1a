"""The table of converters: what an ONNX operator is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossfarm.frontends.onnx.node import Node
    from crossfarm.frontends.onnx.value import Value

#: Gives the node's outputs, all or as many from the front as it has.
Converter = Callable[["Node"], "Value | Iterable[Value]"]

#: (domain, op_type) → converter; ai.onnx is "". Filled by the files in ``converters/``.
CONVERTERS: dict[tuple[str, str], Converter] = {}


def converter(*op_types: str, domain: str = "") -> Callable[[Converter], Converter]:
    """Enters the function into the table for each of ``op_types``; ``Node.version`` tells it the opset."""

    def enter(function: Converter) -> Converter:
        for op_type in op_types:
            assert (domain, op_type) not in CONVERTERS, op_type
            CONVERTERS[domain, op_type] = function
        return function

    return enter
