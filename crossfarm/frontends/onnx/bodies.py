"""Which nodes of a graph are needed and which are supported, and the functions that stand for operators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TypeProto, defs, helper

from crossfarm.errors import InvalidModule
from crossfarm.frontends.onnx.dtypes import ELEMENT_TYPES
from crossfarm.frontends.onnx.registry import CONVERTERS
from crossfarm.frontends.onnx.value import Sequence, Tensor, Value
from crossfarm.ir.graph import dims

if TYPE_CHECKING:
    from crossfarm.frontends.onnx.node import Node
    from crossfarm.frontends.onnx.source import Source

Functions = Mapping[tuple[str, str], FunctionProto]


def subgraphs(node: NodeProto) -> Iterable[GraphProto]:
    """Those in the node's attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _reads(node: NodeProto) -> set[str]:
    """Names that a node needs, those that its subgraphs may take from around them included."""
    found = {name for name in node.input if name}
    for graph in subgraphs(node):
        found.update(o.name for o in graph.output)
        for inner in graph.node:
            found |= _reads(inner)
    return found


def needed(nodes: list[NodeProto], outputs: Iterable[str]) -> set[int]:
    """Positions of the nodes that ``outputs`` are made of."""
    wanted = set(outputs)
    found = set()
    for position in range(len(nodes) - 1, -1, -1):
        if wanted.intersection(nodes[position].output):
            found.add(position)
            wanted |= _reads(nodes[position])
    return found


def without(nodes: Iterable[NodeProto], missing: set[str]) -> list[NodeProto]:
    """A function's body where the optional inputs ``missing`` are not given: uses of them are left out too."""
    if not missing:
        return list(nodes)
    found = []
    for node in nodes:
        if missing.intersection(node.input):
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = ["" if name in missing else name for name in node.input]
            node = copy
        found.append(node)
    return found


def refuse_unsupported(
    nodes: Iterable[NodeProto], outputs: Iterable[str], functions: Functions, source: Source
) -> None:
    """Raises InvalidModule that lists every operator of a model which cannot be read, with the nodes that use it."""
    missing: dict[str, list[str]] = {}
    _collect(list(nodes), outputs, functions, source.opsets, missing, "", set())
    if missing:
        lines = "; ".join(
            f"{op} in {', '.join(where[:4])}{f' and {len(where) - 4} more' if len(where) > 4 else ''}"
            for op, where in sorted(missing.items())
        )
        raise InvalidModule(
            f"{source.name} uses operators that crossfarm does not have: {lines}",
            hint="see docs/onnx.md for those there are; export the model without these, or as functions of others",
            details={"operators": ",".join(sorted(missing))},
        )


def _collect(
    nodes: list[NodeProto], outputs: Iterable[str], functions: Functions, opsets: Mapping[str, int],
    missing: dict[str, list[str]], prefix: str, seen: set[tuple[object, ...]],
) -> None:  # fmt: skip
    """``seen``: functions whose bodies were looked at, with their opsets. What calls another twice does not look twice,
    or a chain of such functions would take for ever."""
    for position in sorted(needed(nodes, outputs)):
        node = nodes[position]
        domain = "" if node.domain == "ai.onnx" else node.domain
        name = f"{prefix}{node.name or f'{node.op_type}_{position}'}"
        key = (domain, node.op_type)
        for graph in subgraphs(node):
            _collect(list(graph.node), [o.name for o in graph.output], functions, opsets, missing, f"{name}/", seen)
        if key in functions:
            body = functions[key]
            rest = {k: f for k, f in functions.items() if k != key}  # a function that calls itself ends here
            inner = {**opsets, **{("" if o.domain == "ai.onnx" else o.domain): o.version for o in body.opset_import}}
            if (known := (key, *sorted(inner.items()))) not in seen:
                seen.add(known)
                _collect(list(body.node), body.output, rest, inner, missing, f"{name}/", seen)
        elif key not in CONVERTERS and not _has_body(node.op_type, domain, opsets.get(domain, 1)):
            missing.setdefault(f"{domain}.{node.op_type}" if domain else node.op_type, []).append(repr(name))


def _schema(op_type: str, domain: str, version: int) -> Any:
    """ONNX's schema of an operator (whose stub lacks functions), None where it has none."""
    if not defs.has(op_type, domain):
        return None
    try:
        return defs.get_schema(op_type, version, domain)
    except defs.SchemaError:
        return None


def _has_body(op_type: str, domain: str, version: int) -> bool:
    schema = _schema(op_type, domain, version)
    return schema is not None and bool(schema.has_function or schema.has_context_dependent_function)


def of_schema(node: Node) -> FunctionProto:
    """The function that ONNX says the node's operator is. Raises InvalidModule where it is none."""
    domain = "" if node.proto.domain == "ai.onnx" else node.proto.domain
    schema = _schema(node.proto.op_type, domain, node.version)
    if schema is None or not (schema.has_function or schema.has_context_dependent_function):
        node.fail("crossfarm does not have this operator", hint="see docs/onnx.md for those there are")
    version = node.scope.opsets.get("", node.version)
    text = b""
    if schema.has_function:
        text = schema.get_function_with_opset_version(_newest(schema.function_opset_versions, version))
    else:
        proto = NodeProto()
        proto.CopyFrom(node.proto)
        del proto.attribute[:]
        for name, attribute in node.attributes.items():
            proto.attribute.add().CopyFrom(attribute)
            proto.attribute[-1].name = name
        types = [_type_proto(value).SerializeToString() for value in node.inputs]
        text = schema.get_context_dependent_function_with_opset_version(
            _newest(schema.context_dependent_function_opset_versions, version), proto.SerializeToString(), types
        )
    if not text:
        node.fail("ONNX gives no function for this use of it")
    function = FunctionProto()
    function.ParseFromString(text)
    return function


def _newest(versions: list[int], wanted: int) -> int:
    return max((v for v in versions if v <= wanted), default=min(versions))


def defaults(node: Node) -> dict[str, AttributeProto]:
    """Attributes that the operator's schema gives where a node does not."""
    domain = "" if node.proto.domain == "ai.onnx" else node.proto.domain
    schema = _schema(node.proto.op_type, domain, node.version)
    if schema is None:
        return {}
    return {name: a.default_value for name, a in schema.attributes.items() if a.default_value.name}


def _type_proto(value: Value | None) -> TypeProto:
    if value is None:
        return TypeProto()
    if isinstance(value, Sequence):
        return helper.make_sequence_type_proto(_type_proto(value.items[0]) if value.items else TypeProto())
    if isinstance(value, Tensor):
        shape = [d if isinstance(d, int) else dims.text([d])[1:-1] for d in value.shape]
        return helper.make_tensor_type_proto(ELEMENT_TYPES[value.dtype], shape)
    return _type_proto(value.value)
