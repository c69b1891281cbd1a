"""RNN, GRU and LSTM, unrolled over a known number of steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from crossfarm.frontends.onnx.converters.activations import activation
from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import Tensor
from crossfarm.ir.graph import dims

#: Activations of the gates: ONNX's name → its operator where it has no attributes.
_PLAIN = {"Relu": "nn.relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softsign": "nn.softsign", "Softplus": "nn.softplus"}
_WITH_ATTRIBUTES = ("LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Elu")
_MOST_STEPS = 512

Gate = Callable[[Tensor], Tensor]


class _Direction:
    """One pass over the sequence: its weights, activations, and state."""

    def __init__(self, node: Node, index: int, gates: int, activations: list[Gate]) -> None:
        self.node, self.index, self.gates, self.activations = node, index, gates, activations
        self.hidden = int(node.attr("hidden_size"))
        weights, recurrent, bias = self.own(1), self.own(2), self.own(3)
        if weights is None or recurrent is None:
            node.fail("it has no weights")
        self.weights, self.recurrent = weights, recurrent
        self.bias = self.recurrent_bias = None
        if bias is not None:
            half = gates * self.hidden
            self.bias, self.recurrent_bias = node.slice(bias, 0, 0, half), node.slice(bias, 0, half, 2 * half)

    def own(self, position: int, axis: int = 0) -> Tensor | None:
        """This direction's part of an input."""
        value = self.node.optional(position)
        if value is None:
            return None
        part = self.node.slice(value, axis, self.index, self.index + 1)
        return self.node.reshape(part, (*value.shape[:axis], *value.shape[axis + 1 :]))

    def project(self, value: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        found = self.node.op("matmul", value, weights, transpose_b=True)
        return found if bias is None else self.node.op("add", found, bias)

    def gate(self, value: Tensor, index: int) -> Tensor:
        return self.node.slice(value, value.ndim - 1, index * self.hidden, (index + 1) * self.hidden)

    def rows(self, value: Tensor, index: int) -> Tensor:
        """A gate's rows of weights or biases."""
        return self.node.slice(value, 0, index * self.hidden, (index + 1) * self.hidden)


def _activations(node: Node, default: tuple[str, ...], directions: int) -> list[list[Gate]]:
    names = node.attr("activations", default * directions)
    alphas, betas = list(node.attr("activation_alpha", ())), list(node.attr("activation_beta", ()))
    clip = node.attr("clip")

    def gate(name: str) -> Gate:
        attrs: dict[str, float] = {}
        if name in _WITH_ATTRIBUTES or name in ("Affine", "ScaledTanh"):
            if alphas:
                attrs["alpha"] = alphas.pop(0)
            if betas and name in ("HardSigmoid", "Affine", "ScaledTanh"):
                attrs["beta"] = betas.pop(0)

        def apply(value: Tensor) -> Tensor:
            if clip is not None:
                value = node.op("clip", value, min=-float(clip), max=float(clip))
            if name in _PLAIN:
                return node.op(_PLAIN[name], value)
            if name in _WITH_ATTRIBUTES:
                return activation(node, name, value, **attrs)
            scale, shift = node.like(attrs.get("alpha", 1.0), value), node.like(attrs.get("beta", 0.0), value)
            if name == "Affine":
                return node.op("add", node.op("multiply", value, scale), shift)
            if name == "ScaledTanh":
                return node.op("multiply", node.op("tanh", node.op("multiply", value, shift)), scale)
            node.fail(f"there is no activation {name!r}")

        return apply

    # names are as written in ONNX's documentation, in any case
    proper = {n.lower(): n for n in (*_PLAIN, *_WITH_ATTRIBUTES, "Affine", "ScaledTanh")}
    gates = [gate(proper.get(n.lower(), n)) for n in names]
    each = len(default)
    return [gates[i * each : (i + 1) * each] for i in range(directions)]


Step = Callable[[_Direction, Tensor, list[Tensor]], list[Tensor]]


def _unrolled(node: Node, gates: int, default: tuple[str, ...], states: int, step: Step) -> list[Tensor]:
    """All directions; ``step`` makes the next states (hidden first) of the projected input and the states so far."""
    value = node.tensor(0)
    batch_first = bool(node.attr("layout", 0))
    if batch_first:
        value = node.transpose(value, (1, 0, 2))
    length = dims.constant(value.shape[0])
    if length is None or length > _MOST_STEPS:
        node.fail(
            f"it is unrolled, and its sequence must have a known length of at most {_MOST_STEPS}, not "
            f"{dims.text(value.shape[:1])[1:-1]}",
            hint="fix the length with shapes=",
        )
    direction = node.attr("direction", "forward")
    backwards = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[direction]
    lengths = node.optional(4)
    if lengths is not None and lengths.numeric and (node.numbers(lengths, "its lengths") == length).all():
        lengths = None
    outputs: list[list[Tensor]] = []
    finals: list[list[Tensor]] = []
    hidden = int(node.attr("hidden_size"))
    for index, backward in enumerate(backwards):
        side = _Direction(node, index, gates, _activations(node, default, len(backwards))[index])
        given = [side.own(5 + k, 1 if batch_first else 0) for k in range(states)]
        blank = node.zeros((value.shape[1], hidden), value)
        now = [blank if g is None else g for g in given]
        whole = side.project(value, side.weights, side.bias)
        made: list[Tensor] = []
        for t in range(length - 1, -1, -1) if backward else range(length):
            item = node.reshape(node.slice(whole, 0, t, t + 1), whole.shape[1:])
            after = step(side, item, now)
            out = after[0]
            if lengths is not None:
                inside = node.op("greater", node.cast(lengths, "int64"), node.const(np.int64(t)))
                inside = node.reshape(inside, (value.shape[1], 1))
                after = [node.op("where", inside, new, old) for new, old in zip(after, now)]
                out = node.op("where", inside, out, node.like(0, out))
            now = after
            made.append(out)
        outputs.append(made[::-1] if backward else made)
        finals.append(now)

    def joined(rows: list[Tensor]) -> Tensor:
        rows = [node.reshape(r, (1, *r.shape)) for r in rows]
        return rows[0] if len(rows) == 1 else node.op("concat", *rows, axis=0)

    sides = [joined(rows) for rows in outputs]
    sides = [node.reshape(s, (s.shape[0], 1, *s.shape[1:])) for s in sides]
    sequence = sides[0] if len(sides) == 1 else node.op("concat", *sides, axis=1)
    last = [joined([final[k] for final in finals]) for k in range(states)]
    if batch_first:
        return [node.transpose(sequence, (2, 0, 1, 3)), *(node.transpose(v, (1, 0, 2)) for v in last)]
    return [sequence, *last]


@converter("RNN")
def _rnn(node: Node) -> list[Tensor]:
    def step(side: _Direction, item: Tensor, states: list[Tensor]) -> list[Tensor]:
        recurrent = side.project(states[0], side.recurrent, side.recurrent_bias)
        return [side.activations[0](node.op("add", item, recurrent))]

    return _unrolled(node, 1, ("Tanh",), 1, step)


@converter("GRU")
def _gru(node: Node) -> list[Tensor]:
    after = bool(node.attr("linear_before_reset", 0))

    def step(side: _Direction, item: Tensor, states: list[Tensor]) -> list[Tensor]:
        (hidden,) = states
        first, second = side.activations

        def part(value: Tensor, index: int) -> Tensor:
            bias = None if side.recurrent_bias is None else side.rows(side.recurrent_bias, index)
            return side.project(value, side.rows(side.recurrent, index), bias)

        update = first(node.op("add", side.gate(item, 0), part(hidden, 0)))
        reset = first(node.op("add", side.gate(item, 1), part(hidden, 1)))
        if after:
            candidate = node.op("multiply", reset, part(hidden, 2))
        else:
            candidate = part(node.op("multiply", reset, hidden), 2)
        new = second(node.op("add", side.gate(item, 2), candidate))
        kept = node.op("multiply", update, node.op("subtract", hidden, new))
        return [node.op("add", new, kept)]

    return _unrolled(node, 3, ("Sigmoid", "Tanh"), 1, step)


@converter("LSTM")
def _lstm(node: Node) -> list[Tensor]:
    coupled = bool(node.attr("input_forget", 0))

    def step(side: _Direction, item: Tensor, states: list[Tensor]) -> list[Tensor]:
        hidden, cell = states
        first, second, third = side.activations
        whole = node.op("add", item, side.project(hidden, side.recurrent, side.recurrent_bias))
        peephole = side.own(7)

        def part(index: int, seen: Tensor, peep: int) -> Tensor:
            value = side.gate(whole, index)
            if peephole is None:
                return value
            return node.op("add", value, node.op("multiply", side.rows(peephole, peep), seen))

        taken = first(part(0, cell, 0))
        kept = node.op("subtract", node.like(1, taken), taken) if coupled else first(part(2, cell, 2))
        fresh = second(side.gate(whole, 3))
        cell = node.op("add", node.op("multiply", kept, cell), node.op("multiply", taken, fresh))
        out = first(part(1, cell, 1))
        return [node.op("multiply", out, third(cell)), cell]

    return _unrolled(node, 4, ("Sigmoid", "Tanh", "Tanh"), 2, step)
