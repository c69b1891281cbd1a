"""Reads an ONNX model's graph, subgraphs and functions into one graph function."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, ValueInfoProto

from crossfarm.errors import InvalidModule
from crossfarm.frontends.onnx import bodies, names
from crossfarm.frontends.onnx.dtypes import dtype_of
from crossfarm.frontends.onnx.emit import Emitter, tensor_of
from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import CONVERTERS
from crossfarm.frontends.onnx.source import Source
from crossfarm.frontends.onnx.value import Optional, Sequence, Tensor, Value
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.expr import GraphExpr
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.module import IRModule

Shapes = Mapping[str, SequenceOf[int | str]]
#: Nodes that are read at most, those of loops and of functions as often as they are unrolled. A module of as many
#: operators has no place in a file, and loops within loops would take days to say so.
MOST_NODES = 1 << 17


@dataclass
class Scope:
    """The names that nodes of a graph see.

    Attributes:
        opsets: domain → version.
        attributes: of the node whose function's body this is, for references.
        prefix: of nodes' names.
    """

    opsets: Mapping[str, int]
    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)
    prefix: str = ""
    parent: Scope | None = None
    values: dict[str, Value] = field(default_factory=dict)

    def find(self, name: str) -> Value | None:
        """The value of a name, here or around."""
        found = self.values.get(name)
        return found if found is not None or self.parent is None else self.parent.find(name)

    def inner(self) -> Scope:
        """For a subgraph, which sees what is around it."""
        return Scope(self.opsets, self.attributes, self.prefix, self)


class Importer:
    """One model being read.

    Attributes:
        source: the model; functions: its own, by domain and name; emitter: makes the function's operators.
    """

    def __init__(self, source: Source, shapes: Shapes, values: Mapping[str, Any]) -> None:
        """``values``: inputs of the model that are to be constants."""
        self.source = source
        self.functions: dict[tuple[str, str], FunctionProto] = {
            (_domain(f.domain), f.name): f for f in source.model.functions
        }
        self.emitter = Emitter()
        self._shapes = shapes
        self._values = values
        self._sizes: dict[str, Var] = {}
        self._read = 0

    def module(self) -> IRModule:
        """The module with the model as function "main". Raises as ``load_onnx`` says."""
        graph = self.source.model.graph
        names.check(self.source.model, self.source.name)
        bodies.refuse_unsupported(graph.node, [o.name for o in graph.output], self.functions, self.source)
        scope = Scope(self.source.opsets)
        scope.values.update((name, Tensor.of(c)) for name, c in self.source.initializers().items())
        given = self._parameters(graph, scope)
        self.nodes(graph.node, [o.name for o in graph.output], scope)
        results: list[GraphExpr] = []
        outputs: list[str] = []
        for output in graph.output:
            value = scope.find(output.name)
            if value is None:
                raise InvalidModule(f"{self.source.name}: no node makes output {output.name!r}")
            for name, tensor in _flat(output.name, value, self.source.name):
                outputs.append(name)
                results.append(self.emitter.expr(tensor))
        attrs: dict[str, tuple[str, ...]] = {"output_names": tuple(outputs)}
        if any(_identifier(n) != n for n in given):
            attrs["input_names"] = tuple(given)
        function = self.emitter.builder.function(results[0] if len(results) == 1 else results, attrs=attrs)
        return IRModule({"main": function})

    def _parameters(self, graph: GraphProto, scope: Scope) -> list[str]:
        inputs = {i.name: i for i in graph.input if i.name not in scope.values}
        for what, given in (("shapes", self._shapes), ("values", self._values)):
            for name in given:
                if name not in inputs:
                    there = ", ".join(inputs) or "none"
                    raise InvalidModule(f"{what}: {self.source.name} has no input {name!r}; its inputs are {there}")
        names = []
        for name, info in inputs.items():
            if name in self._values:
                scope.values[name] = _known(self._values[name])
                continue
            var = self.emitter.builder.parameter(_identifier(name), self._input_type(info))
            scope.values[name] = tensor_of(var, frozenset((name,)))
            names.append(name)
        return names

    def _input_type(self, info: ValueInfoProto) -> TensorType:
        what = f"{self.source.name}: input {info.name!r}"
        kind = info.type.WhichOneof("value")
        if kind != "tensor_type":
            raise InvalidModule(
                f"{what} is no tensor but of {(kind or 'no type').replace('_', ' ')}",
                hint="export the model with one input for each tensor",
            )
        proto = info.type.tensor_type
        dtype = dtype_of(proto.elem_type, what)
        given = self._shapes.get(info.name)
        if given is None and not proto.HasField("shape"):
            raise InvalidModule(f"{what} has no shape", hint=f"give it: shapes={{{info.name!r}: (1, 'n', …)}}")
        if given is not None and proto.HasField("shape") and len(given) != len(proto.shape.dim):
            raise InvalidModule(f"{what} has {len(proto.shape.dim)} dimensions, and shapes gives it {len(given)}")
        found: list[dims.Dim] = []
        for position in range(len(proto.shape.dim) if given is None else len(given)):
            dim = proto.shape.dim[position] if proto.HasField("shape") else None
            fixed = dim.dim_value if dim is not None and dim.HasField("dim_value") and dim.dim_value >= 0 else None
            wanted = given[position] if given is not None else fixed
            if wanted is None:
                wanted = dim.dim_param if dim is not None and dim.dim_param else f"{info.name}_{position}"
            if fixed is not None and wanted != fixed:
                raise InvalidModule(f"{what} is {fixed} long at dimension {position}, and shapes says {wanted!r}")
            found.append(wanted if isinstance(wanted, int) else self._size(wanted))
        return TensorType(dims.dims(found), dtype)

    def _size(self, name: str) -> Var:
        """The symbolic size of a name; equal names are equal sizes."""
        if name not in self._sizes:
            self._sizes[name] = Var(_identifier(name), "int64")
        return self._sizes[name]

    # graphs

    def nodes(self, nodes: Iterable[NodeProto], outputs: Iterable[str], scope: Scope) -> None:
        """Reads those of ``nodes`` that ``outputs`` need; their values are in ``scope`` then."""
        everything = list(nodes)
        needed = bodies.needed(everything, outputs)
        for position, proto in enumerate(everything):
            if position in needed:
                self._node(proto, f"{scope.prefix}{proto.name or f'{proto.op_type}_{position}'}", scope)

    def graph(self, graph: GraphProto, scope: Scope, inputs: SequenceOf[Value | None] = ()) -> list[Value]:
        """The outputs of a subgraph that is given ``inputs``."""
        inner = scope.inner()
        for tensor in graph.initializer:
            inner.values[tensor.name] = Tensor.of(self.source.content(tensor))
        for formal, value in zip(graph.input, inputs):
            if value is not None:
                inner.values[formal.name] = value
        names = [o.name for o in graph.output]
        self.nodes(graph.node, names, inner)
        return [self._found(name, inner) for name in names]

    def _found(self, name: str, scope: Scope) -> Value:
        value = scope.find(name)
        if value is None:
            raise InvalidModule(f"{self.source.name}: {name!r} is used, and no node before it makes it")
        return value

    def _node(self, proto: NodeProto, origin: str, scope: Scope) -> None:
        inputs = [self._found(name, scope) if name else None for name in proto.input]
        node = Node(self, scope, proto, origin, inputs)
        self._read += 1
        if self._read > MOST_NODES:
            raise InvalidModule(
                f"{node.place}: the model has more than {MOST_NODES} nodes where its loops are unrolled and its "
                "functions are written out",
                hint="export it with fewer steps, or in parts",
            )
        key = (_domain(proto.domain), proto.op_type)
        try:
            if key in self.functions:
                outputs = self.inline(node, self.functions[key])
            elif key in CONVERTERS:
                made = CONVERTERS[key](node)
                outputs = [made] if isinstance(made, (Tensor, Sequence, Optional)) else list(made)
            else:
                outputs = self.inline(node, bodies.of_schema(node))
        except InvalidModule as error:
            if error.message.startswith("node "):
                raise
            raise InvalidModule(f"{node.place}: {error.message}", hint=error.hint, details=error.details) from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise InvalidModule(
                f"{node.place}: its inputs or attributes are not what ONNX says of the operator "
                f"({type(error).__name__}: {error})",
                hint="onnx.checker.check_model(model, full_check=True) says more; where it finds no fault, report it "
                "with the model",
            ) from error
        except (MemoryError, RecursionError) as error:
            raise InvalidModule(
                f"{node.place}: reading it takes more than there is ({type(error).__name__}: {error})",
                hint="look at the sizes that it computes with",
            ) from error
        for index, name in enumerate(proto.output):
            if name and index >= len(outputs):
                node.fail(f"its output {index} ({name!r}) is not supported")
            if name:
                scope.values[name] = outputs[index]

    def inline(self, node: Node, function: FunctionProto) -> list[Value]:
        """The outputs of a function's body in place of ``node``."""
        opsets = {**node.scope.opsets, **{_domain(o.domain): o.version for o in function.opset_import}}
        attributes = {a.name: a for a in function.attribute_proto}
        attributes.update(bodies.defaults(node))
        attributes.update(node.attributes)
        scope = Scope(opsets, attributes, f"{node.origin}/")
        for formal, value in zip(function.input, node.inputs):
            if value is not None:
                scope.values[formal] = value
        wanted = [name for index, name in enumerate(function.output) if node.wants(index)]
        missing = {formal for formal in function.input if formal not in scope.values}
        self.nodes(bodies.without(function.node, missing), wanted, scope)
        absent = Optional(None)
        return [scope.find(name) or absent for name in function.output[: len(node.proto.output)]]


def _known(value: Any) -> Value:
    if value is None:
        return Optional(None)
    if isinstance(value, (list, tuple)):
        return Sequence(tuple(Tensor.of(np.asarray(v)) for v in value))
    return Tensor.of(np.asarray(value))


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _identifier(name: str) -> str:
    found = re.sub(r"\W", "_", name) or "_"
    return f"_{found}" if found[0].isdigit() or keyword.iskeyword(found) else found


def _flat(name: str, value: Value, model: str) -> list[tuple[str, Tensor]]:
    """The tensors of an output: of a sequence, one after the other."""
    if isinstance(value, Tensor):
        return [(name, value)]
    if isinstance(value, Sequence):
        return [(f"{name}.{i}", item) for i, item in enumerate(value.items)]
    if value.value is not None:
        return _flat(name, value.value, model)
    raise InvalidModule(f"{model}: output {name!r} is an optional value that is absent")
