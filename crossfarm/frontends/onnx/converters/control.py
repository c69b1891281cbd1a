"""If, Loop and Scan: branches are chosen and loops unrolled where the model says how; other branches stay."""

from __future__ import annotations

import numpy as np

from crossfarm.frontends.onnx.emit import tensor_of
from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import Optional, Sequence, Tensor, Value
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.expr import Conditional
from crossfarm.ir.graph.infer import same_type
from crossfarm.ir.graph.types import TupleType

#: Longest loop that is unrolled.
MOST_STEPS = 1024


@converter("If")
def _if(node: Node) -> list[Value]:
    condition = node.tensor(0)
    if condition.numeric:
        branch = "then_branch" if node.numbers(condition, "its condition").reshape(-1)[0] else "else_branch"
        return node.importer.graph(node.graph(branch), node.scope)
    emitter = node.importer.emitter
    flag = emitter.expr(node.reshape(condition, ()))
    sides, types, sources = [], [], set(condition.sources)
    for branch in ("then_branch", "else_branch"):
        with emitter.branch():
            values = node.importer.graph(node.graph(branch), node.scope)
            if not all(isinstance(v, Tensor) for v in values):
                node.numbers(condition, "its condition, where branches give sequences,")
            results = [_plain(node, v) for v in values]
            sides.append(emitter.seq(results))
        types.append([r.type for r in results])
        sources.update(*(r.sources for r in results))
    for index, (a, b) in enumerate(zip(*types)):
        if not same_type(a, b):
            node.fail(
                f"output {index} is {a.dtype}{dims.text(a.shape)} in one branch and {b.dtype}{dims.text(b.shape)} in "
                "the other, and which it is is known only when the model runs",
                hint="make both of one shape, or give the condition's value when the model is loaded",
            )
    found = emitter.builder.bind(Conditional(flag, *sides))
    fields = emitter.builder.items(found) if isinstance(found.type, TupleType) else [found]
    return [tensor_of(f, frozenset(sources)) for f in fields]


def _plain(node: Node, value: Value) -> Tensor:
    if not isinstance(value, Tensor):
        node.fail("a branch that is chosen when the model runs gives a sequence")
    return value


@converter("Loop")
def _loop(node: Node) -> list[Value]:
    body = node.graph("body")
    trips, condition = node.optional(0), node.optional(1)
    most = None if trips is None else node.ints(trips, "its trip count")[0]
    going = True if condition is None else bool(node.numbers(condition, "its condition").reshape(-1)[0])
    carried: list[Value | None] = list(node.inputs[2:])
    scanned: list[list[Tensor]] = [[] for _ in body.output[1 + len(carried) :]]
    step = 0
    while going and (most is None or step < most):
        if step == MOST_STEPS:
            node.fail(f"it runs for more than {MOST_STEPS} steps, and loops are unrolled")
        results = node.importer.graph(
            body, node.scope, [node.const(np.int64(step)), node.const(np.bool_(True)), *carried]
        )
        for items, value in zip(scanned, results[1 + len(carried) :]):
            items.append(_plain(node, value))
        carried = list(results[1 : 1 + len(carried)])
        if not isinstance(results[0], Tensor):
            node.fail("its body's condition is no tensor")
        going = bool(node.numbers(results[0], "whether it goes on").reshape(-1)[0])
        step += 1
    stacked = [_stack(node, items, 0) for items in scanned]
    return [*(Optional(None) if c is None else c for c in carried), *stacked]


def _stack(node: Node, items: list[Tensor], axis: int) -> Tensor:
    if not items:
        node.fail("it runs for no step, and what it scans has no shape then")
    rows = [node.reshape(i, (*i.shape[:axis], 1, *i.shape[axis:])) for i in items]
    return rows[0] if len(rows) == 1 else node.op("concat", *rows, axis=axis)


@converter("Scan")
def _scan(node: Node) -> list[Value]:
    if node.version >= 9:
        return _scanned(node, node.tensors)
    # opset 8: everything has a batch dimension in front, and an optional input says how long each sequence is
    if node.has(0):
        node.fail("its sequence lengths are not supported")
    tensors = node.tensors[1:] if node.inputs[0] is not None else [node.tensor(i) for i in range(1, len(node.inputs))]
    batch = dims.constant(tensors[0].shape[0])
    if batch is None:
        node.fail("its batch must be a known number")
    rows = []
    for i in range(batch):
        items = [node.reshape(node.slice(t, 0, i, i + 1), t.shape[1:]) for t in tensors]
        rows.append([_plain(node, v) for v in _scanned(node, items)])
    return [_stack(node, [row[i] for row in rows], 0) for i in range(len(rows[0]))]


def _scanned(node: Node, tensors: list[Tensor]) -> list[Value]:
    body = node.graph("body")
    count = int(node.attr("num_scan_inputs"))
    carried: list[Value] = list(tensors[: len(tensors) - count])
    sequences = tensors[len(tensors) - count :]
    outputs = len(body.output) - len(carried)
    axes = [dims.axis(a, t.ndim) for a, t in zip(node.attr("scan_input_axes", (0,) * count), sequences)]
    backward = node.attr("scan_input_directions", node.attr("directions", (0,) * count))
    result_axes = node.attr("scan_output_axes", (0,) * outputs)
    result_backward = node.attr("scan_output_directions", (0,) * outputs)
    steps = dims.constant(sequences[0].shape[axes[0]])
    if steps is None or steps > MOST_STEPS:
        node.fail(f"it is unrolled, and must have a known length of at most {MOST_STEPS} steps")
    scanned: list[list[Tensor]] = [[] for _ in range(outputs)]
    for step in range(steps):
        items = []
        for value, axis, direction in zip(sequences, axes, backward):
            at = steps - 1 - step if direction else step
            one = node.slice(value, axis, at, at + 1)
            items.append(node.reshape(one, (*value.shape[:axis], *value.shape[axis + 1 :])))
        results = node.importer.graph(body, node.scope, [*carried, *items])
        carried = results[: len(carried)]
        for kept, made in zip(scanned, results[len(carried) :]):
            kept.append(_plain(node, made))
    stacked = []
    for items, axis, direction in zip(scanned, result_axes, result_backward):
        items = items[::-1] if direction else items
        stacked.append(_stack(node, items, dims.axis(axis, items[0].ndim + 1)))
    return [*carried, *stacked]


@converter("SequenceMap")
def _sequence_map(node: Node) -> list[Value]:
    sequences = node.inputs
    first = sequences[0]
    if not isinstance(first, Sequence):
        node.fail("its first input must be a sequence")
    body = node.graph("body")
    rows = []
    for i in range(len(first.items)):
        given = [s.items[i] if isinstance(s, Sequence) else s for s in sequences]
        rows.append([_plain(node, v) for v in node.importer.graph(body, node.scope, given)])
    return [Sequence(tuple(row[k] for row in rows)) for k in range(len(body.output))]
