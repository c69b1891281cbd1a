"""Sequences of tensors and optional values: lists that the importer keeps, no values of the function."""

from __future__ import annotations

import numpy as np

from crossfarm.frontends.onnx.converters.movement import pieces
from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import Optional, Sequence, Tensor, Value
from crossfarm.ir.graph import dims

#: Of a sequence, each of which becomes an operator.
MOST_ITEMS = 1 << 16


def _sequence(node: Node) -> tuple[Tensor, ...]:
    found = node.inputs[0]
    found = found.value if isinstance(found, Optional) else found
    if not isinstance(found, Sequence):
        node.fail("its first input must be a sequence")
    return found.items


def _position(node: Node, index: int, count: int) -> int:
    (place,) = node.ints(node.tensor(index), "its position")
    if not -count <= place < count:
        node.fail(f"its position {place} is outside a sequence of {count}")
    return place % count


@converter("SequenceConstruct")
def _construct(node: Node) -> Sequence:
    return Sequence(tuple(node.tensors))


@converter("SequenceEmpty")
def _empty(node: Node) -> Sequence:
    return Sequence(())


@converter("SequenceAt")
def _at(node: Node) -> Tensor:
    items = _sequence(node)
    return items[_position(node, 1, len(items))]


@converter("SequenceLength")
def _length(node: Node) -> Tensor:
    return node.const(np.int64(len(_sequence(node))))


@converter("SequenceInsert")
def _insert(node: Node) -> Sequence:
    items = list(_sequence(node))
    place = len(items)
    if node.has(2):
        (place,) = node.ints(node.tensor(2), "its position")
        if not -len(items) <= place <= len(items):
            node.fail(f"its position {place} is outside a sequence of {len(items)}")
        place = place + len(items) if place < 0 else place
    items.insert(place, node.tensor(1))
    return Sequence(tuple(items))


@converter("SequenceErase")
def _erase(node: Node) -> Sequence:
    items = list(_sequence(node))
    del items[_position(node, 1, len(items)) if node.has(1) else -1]
    return Sequence(tuple(items))


@converter("SplitToSequence")
def _split(node: Node) -> Sequence:
    value = node.tensor(0)
    axis = dims.axis(int(node.attr("axis", 0)), value.ndim)
    extent = dims.constant(value.shape[axis])
    given = node.optional(1)
    if given is not None and given.ndim:
        return Sequence(tuple(pieces(node, value, axis, node.sizes(given, "its split"))))
    if extent is None:
        node.fail("the axis must have a known length")
    each = 1 if given is None else node.ints(given, "its split")[0]
    if each <= 0 or extent > each * MOST_ITEMS:
        node.fail(f"{extent} elements in pieces of {each}; a sequence has at most {MOST_ITEMS} items")
    whole, rest = divmod(extent, each)
    lengths: tuple[dims.Dim, ...] = (each,) * whole + ((rest,) if rest else ())
    items = pieces(node, value, axis, lengths)
    if given is None and not node.attr("keepdims", 1):
        items = [node.reshape(i, (*i.shape[:axis], *i.shape[axis + 1 :])) for i in items]
    return Sequence(tuple(items))


@converter("ConcatFromSequence")
def _concat(node: Node) -> Tensor:
    items = list(_sequence(node))
    axis = int(node.attr("axis"))
    if node.attr("new_axis", 0):
        axis = dims.axis(axis, items[0].ndim + 1)
        items = [node.reshape(i, (*i.shape[:axis], 1, *i.shape[axis:])) for i in items]
    return items[0] if len(items) == 1 else node.op("concat", *items, axis=dims.axis(axis, items[0].ndim))


@converter("Optional")
def _optional(node: Node) -> Optional:
    return Optional(node.inputs[0] if node.inputs else None)


@converter("OptionalHasElement")
def _has_element(node: Node) -> Tensor:
    found = node.inputs[0] if node.inputs else None
    there = found is not None and not (isinstance(found, Optional) and found.value is None)
    return node.const(np.bool_(there))


@converter("OptionalGetElement")
def _get_element(node: Node) -> Value:
    found = node.inputs[0]
    found = found.value if isinstance(found, Optional) else found
    if found is None:
        node.fail("the optional value is absent")
    return found
