"""One node of an ONNX graph, as its converter sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence as SequenceOf
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto

from crossfarm.errors import InvalidModule
from crossfarm.frontends.onnx.source import attribute
from crossfarm.frontends.onnx.value import SMALL, Array, Tensor, Value
from crossfarm.ir import dtype as dt
from crossfarm.ir.graph import dims

if TYPE_CHECKING:
    from crossfarm.frontends.onnx.importer import Importer, Scope

#: Of a constant that a node's numbers ask for: a few bytes of a file are not to take gigabytes.
MOST_ELEMENTS = 1 << 26


class Node:
    """A node with the values of its inputs.

    Attributes:
        proto: the node itself.
        origin: what it is called in messages and in the operators made of it.
        version: of its domain's operators.
        inputs: one value an input, None for one that is left out.
        scope: the names around it; importer: reads subgraphs.
    """

    def __init__(
        self, importer: Importer, scope: Scope, proto: NodeProto, origin: str, inputs: SequenceOf[Value | None]
    ) -> None:
        self.importer = importer
        self.scope = scope
        self.proto = proto
        self.origin = origin
        self.inputs = list(inputs)
        self.version = scope.opsets.get("" if proto.domain == "ai.onnx" else proto.domain, 1)
        self._attributes: dict[str, AttributeProto] = {}
        for found in proto.attribute:
            actual: AttributeProto | None = found
            if found.ref_attr_name:
                actual = scope.attributes.get(found.ref_attr_name)
            if actual is not None:
                self._attributes[found.name] = actual

    # what it says

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as a Python value, ``default`` where it is not given."""
        found = self._attributes.get(name)
        return default if found is None else attribute(found, self.importer.source)

    @property
    def attributes(self) -> dict[str, AttributeProto]:
        """Those that are given, references of a function's body resolved."""
        return self._attributes

    def graph(self, name: str) -> GraphProto:
        """A subgraph."""
        found: GraphProto = self.attr(name)
        return found

    def wants(self, index: int) -> bool:
        """True where the output has a name."""
        return index < len(self.proto.output) and bool(self.proto.output[index])

    # its inputs

    def has(self, index: int) -> bool:
        """True where the input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def tensor(self, index: int) -> Tensor:
        """An input that must be given. Raises InvalidModule where it is not, or is no tensor."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(found, Tensor):
            self.fail(f"its input {index} must be a tensor, not {'missing' if found is None else 'a sequence'}")
        return found

    def optional(self, index: int) -> Tensor | None:
        """An input that may be left out."""
        return self.tensor(index) if self.has(index) else None

    @property
    def tensors(self) -> list[Tensor]:
        """All inputs, none left out."""
        return [self.tensor(i) for i in range(len(self.inputs))]

    def content(self, value: Tensor, what: str) -> Array:
        """Known elements: numbers, or an array of objects with sizes among them.

        Raises:
            InvalidModule: they are known only when the model runs.
        """
        if value.content is None:
            inputs = ", ".join(sorted(value.sources))
            whence = f": it depends on the values of {inputs}" if inputs else ""
            raise InvalidModule(
                f"{self.place}: {what} must be known when the model is read, and is not{whence}",
                hint="export the model with fixed shapes, or give the input's value when it is loaded",
                details={"inputs": ",".join(sorted(value.sources))},
            )
        return value.content

    def numbers(self, value: Tensor, what: str) -> Array:
        """Known elements without symbolic sizes. Raises InvalidModule where there are such."""
        found = self.content(value, what)
        if found.dtype == object:
            self.fail(f"{what} must be numbers, not symbolic sizes: {dims.text(list(found.reshape(-1)))}")
        return found

    def ints(self, value: Tensor, what: str) -> tuple[int, ...]:
        """Known integers, one dimension or none."""
        return tuple(int(v) for v in self.numbers(value, what).reshape(-1))

    def sizes(self, value: Tensor, what: str) -> tuple[dims.Dim, ...]:
        """Known sizes, symbolic ones among them."""
        found = self.content(value, what).reshape(-1)
        return tuple(v if isinstance(v, dims.Expr) else int(v) for v in found)

    def axes(self, index: int, name: str = "axes") -> tuple[int, ...] | None:
        """Axes: an input where it is given, else the attribute, None for neither."""
        given = self.optional(index)
        if given is not None:
            return self.ints(given, f"its {name}")
        found = self.attr(name)
        return None if found is None else tuple(found)

    # what it makes

    def op(self, name: str, *args: Tensor, **attrs: Any) -> Tensor:
        """The result of an operator of one."""
        found = self.ops(name, *args, **attrs)
        assert len(found) == 1, name
        return found[0]

    def ops(self, name: str, *args: Tensor, **attrs: Any) -> list[Tensor]:
        """All results of an operator."""
        return self.importer.emitter.op(name, args, attrs, self.origin)

    def length(self, count: int, what: str) -> int:
        """``count``, of a constant that is about to be made. Raises InvalidModule where it is negative or too large."""
        if not 0 <= count <= MOST_ELEMENTS:
            self.fail(f"{what} would have {count} elements; 0 to {MOST_ELEMENTS} are made when a model is read")
        return count

    def const(self, content: Any, dtype: str | None = None) -> Tensor:
        """A known tensor of numbers."""
        return self.importer.emitter.constant(content, dtype)

    def like(self, number: float, value: Tensor) -> Tensor:
        """A known scalar of ``value``'s dtype."""
        return self.const(np.asarray(number).astype(dt.to_numpy(value.dtype)))

    def full(self, number: Any, dtype: str, shape: SequenceOf[dims.Dim]) -> Tensor:
        """A tensor of one number; known where it is small."""
        known = dims.constants(shape)
        if known is not None and math.prod(known) <= SMALL:
            return self.const(np.full(known, number, dt.to_numpy(dtype)))
        return self.op("full", shape=tuple(shape), value=np.asarray(number, dt.to_numpy(dtype)).item(), dtype=dtype)

    def zeros(self, shape: SequenceOf[dims.Dim], like: Tensor) -> Tensor:
        """Zeros of ``like``'s dtype."""
        return self.full(0, like.dtype, shape)

    def iota(self, length: dims.Dim, dtype: str = "int64") -> Tensor:
        """0, 1, 2 and so on; known where it is short."""
        number = dims.constant(length)
        if number is not None and number <= SMALL:
            return self.const(np.arange(number), dtype)
        return self.op("iota", shape=(length,), axis=0, dtype=dtype)

    def cast(self, value: Tensor, dtype: str) -> Tensor:
        """The same elements in another dtype."""
        return value if value.dtype == dtype else self.op("astype", value, dtype=dtype)

    def reshape(self, value: Tensor, shape: SequenceOf[dims.Dim]) -> Tensor:
        """The same elements in another shape."""
        return value if dims.same_shape(value.shape, shape) else self.op("reshape", value, shape=tuple(shape))

    def transpose(self, value: Tensor, order: SequenceOf[int]) -> Tensor:
        """Dimensions in another order."""
        return value if list(order) == list(range(value.ndim)) else self.op("permute_dims", value, axes=tuple(order))

    def slice(self, value: Tensor, axis: int, begin: dims.Dim, end: dims.Dim) -> Tensor:
        """Elements ``begin`` to before ``end`` of one dimension."""
        return self.op("strided_slice", value, axes=(axis,), begin=(begin,), end=(end,))

    # errors

    @property
    def place(self) -> str:
        """For messages: which node it is."""
        domain = f"{self.proto.domain}." if self.proto.domain not in ("", "ai.onnx") else ""
        return f"node {self.origin!r} ({domain}{self.proto.op_type})"

    def fail(self, why: str, hint: str = "") -> NoReturn:
        """Raises InvalidModule with ``why``, after which node it is."""
        raise InvalidModule(f"{self.place}: {why}", hint=hint)
