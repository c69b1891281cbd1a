"""Writes modules as tables of nodes, see ``proto/crossfarm/v1/ir.proto``. Canonical: one module, one table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.schema import ANNOTATIONS, BY_CLASS, DTYPES, MAX_NODES, SHARED, Field, children, type_problem
from crossfarm.ir.visitor import MAX_DEPTH
from crossfarm.wire.v1 import ir_pb2

#: Contents of constants up to this many bytes are in the table; larger ones are named by digest.
INLINE_BYTES = 4096


class Encoder:
    """Appends nodes to the table in post-order, with a stack of its own instead of recursion.

    Attributes:
        min_reader: the newest version of anything that was written.
        apart: the constants that are named by digest, by it, in the order of the table.
    """

    def __init__(self) -> None:
        self.message = ir_pb2.Module()
        self.shared: dict[Any, int] = {}  # Var, Buffer or GraphVar (by identity) → its reference
        self.constants: dict[tuple[str, tuple[int, ...], str], int] = {}
        self.min_reader = 1
        self.apart: dict[str, ConstantData] = {}

    def module(self, mod: IRModule) -> ir_pb2.Module:
        self.message.name = _writable_text(mod.name, "the module's name")
        self.message.attrs = self._mapping(mod.attrs)
        for name, func in mod.functions.items():
            self._function(self.message.functions.add(), name, func)
        return self.message

    def _function(self, entry: ir_pb2.Module.Function, name: str, func: AnyFunction) -> None:
        entry.name = _writable_text(name, "a function's name")
        entry.params.extend(self._add(p) for p in func.params)
        entry.body = self._add(func.body)
        entry.attrs = self._mapping(func.attrs)
        entry.private = bool(func.private)
        if not isinstance(func, PrimFunc):
            entry.result = self._add(func.result)
            entry.impure = not func.pure

    def _mapping(self, attrs: Any) -> int:
        return self._add(attrs) if attrs else 0

    def _add(self, root: Any) -> int:
        """Adds ``root`` and what it holds; returns its reference."""
        stack = [_Frame(root)]
        while True:
            frame = stack[-1]
            child = next(frame.todo, _DONE)
            if child is not _DONE:
                if isinstance(child, SHARED) and child in self.shared:
                    frame.references.append(self.shared[child])
                elif len(stack) >= MAX_DEPTH:
                    raise InvalidModule(f"the module nests deeper than {MAX_DEPTH} levels", hint="split the expression")
                else:
                    stack.append(_Frame(child))
                continue
            reference = self._append(frame.item, iter(frame.references))
            stack.pop()
            if not stack:
                return reference
            stack[-1].references.append(reference)

    def _append(self, item: Any, references: Iterator[int]) -> int:
        spec = BY_CLASS.get(type(item))
        if spec is not None and spec.shared and item in self.shared:
            return self.shared[item]
        if len(self.message.nodes) >= MAX_NODES:
            raise InvalidModule(f"the module has more than {MAX_NODES} nodes")
        node = self.message.nodes.add()
        if spec is None:
            _encode_plain(node, item, references)
        else:
            problem = type_problem(item)
            if problem is not None:
                raise InvalidModule(f"cannot write this module: {problem}")
            self.min_reader = max(self.min_reader, spec.since)
            target = getattr(node, spec.wire)
            target.SetInParent()
            for f in spec.fields:
                self._encode_field(target, f, getattr(item, f.name), item, references)
        reference = len(self.message.nodes)
        if spec is not None and spec.shared:
            self.shared[item] = reference
        return reference

    def _encode_field(self, target: Any, f: Field, value: Any, owner: Any, references: Iterator[int]) -> None:
        match f.kind:
            case "node" | "attr":
                setattr(target, f.name, next(references))
            case "optional" | "annotations":
                # an empty mapping of annotations is not written, nor is an absent node
                if value is not None and not (f.kind == "annotations" and not value):
                    setattr(target, f.name, next(references))
            case "nodes":
                getattr(target, f.name).extend(next(references) for _ in value)
            case "choice":
                assert f.numbers is not None
                self.min_reader = max(self.min_reader, f.numbers.since(value))
                setattr(target, f.name, f.numbers.id_of[value])
            case "dtype":
                setattr(target, f.name, self._dtype(value, owner))
            case "integer":
                if not -(1 << 63) <= value < 1 << 64:
                    raise InvalidModule(f"cannot write this module: the constant {value} does not fit 64 bits")
                setattr(target, f.name, value - (1 << 64) if value >= 1 << 63 else value)
            case "float":
                setattr(target, f.name, math.nan if math.isnan(value) else value)
            case "constant":
                setattr(target, f.name, self._constant(value))
            case "text":
                setattr(target, f.name, _writable_text(value, f"{type(owner).__name__}.{f.name}"))
            case _:
                setattr(target, f.name, value)

    def _dtype(self, value: str, owner: Any) -> int:
        if not dt.is_valid(value):
            raise InvalidModule(f"cannot write this module: {type(owner).__name__} has unknown dtype {value!r}")
        scalar, lanes = dt.split(value)
        self.min_reader = max(self.min_reader, DTYPES.since(scalar))
        return DTYPES.id_of[scalar] + 256 * (lanes - 1)

    def _constant(self, data: ConstantData) -> int:
        """Adds a constant to the table of those unless it is there; returns its reference."""
        key = (data.dtype, data.shape, data.digest)
        if key in self.constants:
            return self.constants[key]
        entry = self.message.constants.add()
        entry.dtype = self._dtype(data.dtype, data)
        entry.shape.extend(data.shape)
        if data.known and data.nbytes <= INLINE_BYTES:
            entry.content = bytes(data.view)
        else:
            entry.sha256 = bytes.fromhex(data.digest)
            self.apart.setdefault(data.digest, data)
        self.constants[key] = len(self.message.constants)
        return self.constants[key]


_DONE = object()


class _Frame:
    """A node on the way down: its children left to do, and the references of those done."""

    def __init__(self, item: Any) -> None:
        self.item = item
        # empty annotations have no node; see _encode_field
        self.todo = (c for label, c in children(item) if not (label in ANNOTATIONS and not c))
        self.references: list[int] = []


def _encode_plain(node: ir_pb2.Node, value: Any, references: Iterator[int]) -> None:
    """An attribute's value that is not an expression."""
    if value is None:
        node.none_value.SetInParent()
    elif isinstance(value, bool):
        node.bool_value = value
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise InvalidModule(f"cannot write this module: the attribute value {value} does not fit int64")
        node.int_value = value
    elif isinstance(value, float):
        node.float_value = math.nan if math.isnan(value) else value
    elif isinstance(value, str):
        node.text_value = _writable_text(value, "an attribute's value")
    elif isinstance(value, tuple):
        node.tuple_value.SetInParent()
        node.tuple_value.items.extend(references)
    elif isinstance(value, Mapping):
        node.map_value.SetInParent()
        node.map_value.keys.extend(_writable_text(key, "an attribute's key") for key in sorted(value))
        node.map_value.values.extend(references)
    else:
        raise InvalidModule(
            f"cannot write this module: an attribute holds a {type(value).__name__}, not plain data or an expression"
        )


def _writable_text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidModule(f"cannot write this module: {what} is a {type(value).__name__}, not a str")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidModule(f"cannot write this module: {what} {value!r} is not valid Unicode text") from None
    return value
