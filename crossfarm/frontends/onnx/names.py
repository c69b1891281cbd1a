"""Whether a model's names are text, and each names one thing: what is read would be another model otherwise."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import GraphProto, ModelProto, NodeProto

from crossfarm.errors import InvalidModule
from crossfarm.frontends.onnx.bodies import subgraphs


def check(model: ModelProto, what: str) -> None:
    """Looks at a whole model, which messages call ``what``.

    Raises:
        InvalidModule: a name is no UTF-8, two inputs, weights or results of one graph have one name, or two functions.
    """
    # overloads of one name are not told apart where they are called
    _each_once([f"{f.domain}.{f.name}" for f in model.functions], "functions", what)
    for function in model.functions:
        _check(function.node, list(function.input), [], f"{what}, function {function.name!r}")
    _graph(model.graph, what)


def _graph(graph: GraphProto, what: str) -> None:
    inputs, weights = [i.name for i in graph.input], [i.name for i in graph.initializer]
    for info in graph.input:
        _text([d.dim_param for d in info.type.tensor_type.shape.dim], what)
    _text([o.name for o in graph.output], what)
    _each_once(inputs, "inputs", what)
    _check(graph.node, inputs, weights, what)


def _check(nodes: Iterable[NodeProto], inputs: list[str], weights: list[str], what: str) -> None:
    _each_once(weights, "weights", what)
    made = [*dict.fromkeys([*inputs, *weights])]  # an input may be given a value for when callers give none
    for node in nodes:
        _text([node.op_type, node.domain, node.name, *node.input, *(a.name for a in node.attribute)], what)
        made.extend(name for name in node.output if name)
        for graph in subgraphs(node):
            _graph(graph, what)
    _each_once(made, "values", what)


def _text(names: Iterable[object], what: str) -> None:
    """protobuf gives bytes for what is no UTF-8."""
    for name in names:
        if isinstance(name, bytes):
            raise InvalidModule(
                f"{what}: the name {name[:40]!r} is no UTF-8", hint="the file was damaged: export the model again"
            )


def _each_once(names: list[str], of: str, what: str) -> None:
    _text(names, what)
    if len(set(names)) < len(names):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise InvalidModule(
            f"{what}: two {of} are called {twice!r}", hint="which one is meant cannot be told: export the model again"
        )
