"""Reads tables of nodes, see ``proto/crossfarm/v1/ir.proto``, trusting nothing in them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from crossfarm._version import __version__
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.constant_files import Contents
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import Function, GraphVar, Seq
from crossfarm.ir.graph.types import TYPES
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.schema import BY_WIRE, DTYPES, GRAPH_CALLS, MAX_NODES, SHARED, Field, NodeSpec, class_names
from crossfarm.ir.stmt import Stmt
from crossfarm.ir.visitor import MAX_DEPTH
from crossfarm.wire.v1 import ir_pb2

#: What numpy can hold.
_MAX_RANK = 32


class Malformed(Exception):
    """What is wrong with the table, in words, and what to do about it; becomes InvalidModule."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.hint = hint or "the program that wrote it is at fault; write it again with crossfarm"


class _Plain:
    """An attribute's value in the table, apart from the nodes, so that one is never taken for the other."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Decoder:
    """Rebuilds nodes in table order: what a node refers to is already there.

    Args:
        contents: where the contents of larger constants are, None where they are elsewhere.
    """

    def __init__(self, message: ir_pb2.Module, contents: Contents | None = None) -> None:
        self.message = message
        self.contents = contents
        self.constants: list[ConstantData] = []
        self.unused_constants: set[int] = set()
        self.table: list[Any] = []
        self.depth: list[int] = []
        self.unused: set[int] = set()  # references of nodes that still need their one parent

    def module(self) -> IRModule:
        if len(self.message.nodes) > MAX_NODES:
            raise Malformed(f"{len(self.message.nodes)} nodes, at most {MAX_NODES} are read")
        for position, entry in enumerate(self.message.constants):
            self._where = f"constant {position + 1}"
            self.constants.append(self._constant(entry))
        self.unused_constants = set(range(1, len(self.constants) + 1))
        for position, node in enumerate(self.message.nodes):
            self._where = f"node {position + 1}"
            self._depth = 1
            item = self._node(node)
            if self._depth > MAX_DEPTH:
                raise Malformed(f"{self._where} nests deeper than {MAX_DEPTH} levels")
            self.table.append(item)
            self.depth.append(self._depth)
            if not isinstance(item, SHARED):
                self.unused.add(position + 1)
        functions: dict[str, AnyFunction] = {}
        for function in self.message.functions:
            self._where = f"function {function.name!r}"
            if function.name in functions:
                raise Malformed(f"{self._where} is there twice")
            functions[function.name] = self._function(function)
        self._where = "the module"
        mod = IRModule(functions, self._mapping(self.message.attrs), name=self.message.name)
        if self.unused:
            raise Malformed(f"node {min(self.unused)} belongs to nothing")
        if self.unused_constants:
            raise Malformed(f"constant {min(self.unused_constants)} belongs to nothing")
        return mod

    def _function(self, entry: ir_pb2.Module.Function) -> AnyFunction:
        if not entry.result:
            return PrimFunc(
                params=tuple(self._take(p, (Var, Buffer)) for p in entry.params),
                body=self._take(entry.body, (Stmt,)),
                attrs=self._mapping(entry.attrs),
                private=entry.private,
            )
        return Function(
            params=tuple(self._take(p, (GraphVar,)) for p in entry.params),
            body=self._take(entry.body, (Seq,)),
            result=self._take(entry.result, TYPES),
            attrs=self._mapping(entry.attrs),
            private=entry.private,
            pure=not entry.impure,
        )

    def _constant(self, entry: ir_pb2.Module.ConstantData) -> ConstantData:
        dtype, shape = self._dtype(entry.dtype), tuple(entry.shape)
        if dtype not in dt.SCALARS or len(shape) > _MAX_RANK:
            raise Malformed(f"{self._where} is of {dtype} with {len(shape)} dimensions")
        size = math.prod(shape) * dt.itemsize(dtype)
        if entry.sha256:
            if len(entry.sha256) != 32 or entry.content:
                raise Malformed(f"{self._where} must have its content, or a digest of 32 bytes, and not both")
            digest = entry.sha256.hex()
            load = None if self.contents is None else self.contents.add(digest, size, self._where)
            return ConstantData(dtype, shape, digest=digest, load=load)
        if len(entry.content) != size:
            raise Malformed(f"{self._where} of {size} bytes comes with {len(entry.content)}")
        held = np.frombuffer(entry.content, np.uint8)
        return ConstantData(dtype, shape, load=lambda: held)

    def _node(self, node: ir_pb2.Node) -> Any:
        wire = node.WhichOneof("node")
        if wire is None:
            raise Malformed(f"{self._where} is of a kind this reader does not know")
        spec = BY_WIRE.get(wire)
        if spec is None:
            return _Plain(self._plain(wire, getattr(node, wire)))
        self._where = f"{self._where} ({wire})"
        source = getattr(node, wire)
        return spec.cls(**{f.name: self._field(source, f, spec) for f in spec.fields})

    def _plain(self, wire: str, value: Any) -> Any:
        match wire:
            case "none_value":
                return None
            case "tuple_value":
                return tuple(self._attr(r) for r in value.items)
            case "map_value":
                if len(value.keys) != len(value.values):
                    raise Malformed(f"{self._where} has {len(value.keys)} keys and {len(value.values)} values")
                if any(a >= b for a, b in zip(value.keys, value.keys[1:])):
                    raise Malformed(f"{self._where} has keys out of order")
                return {key: self._attr(r) for key, r in zip(value.keys, value.values)}
            case _:
                return value

    def _field(self, source: Any, f: Field, spec: NodeSpec) -> Any:
        value = getattr(source, f.name)
        match f.kind:
            case "node":
                return self._take(value, f.of)
            case "optional":
                return self._take(value, f.of) if value else None
            case "nodes":
                return tuple(self._take(r, f.of) for r in value)
            case "annotations":
                return self._mapping(value)
            case "attr":
                return self._attr(value)
            case "choice":
                assert f.numbers is not None
                if value not in f.numbers.name_of:
                    hint = f"upgrade crossfarm (this is {__version__})" if f.numbers is GRAPH_CALLS else ""
                    raise Malformed(f"{self._where} has {f.numbers.what} number {value}, which this reader lacks", hint)
                return f.numbers.name_of[value]
            case "dtype":
                return self._dtype(value)
            case "integer":
                # the node's dtype says whether the 64 bits are signed
                unsigned = DTYPES.name_of.get(source.dtype % 256, "").startswith("uint")
                return value + (1 << 64) if unsigned and value < 0 else value
            case "constant":
                if not 1 <= value <= len(self.constants):
                    raise Malformed(f"{self._where} refers to constant {value} of {len(self.constants)}")
                self.unused_constants.discard(value)
                return self.constants[value - 1]
            case _:
                return value

    def _dtype(self, code: int) -> str:
        scalar, lanes = DTYPES.name_of.get(code % 256), code // 256 + 1
        name = f"{scalar}x{lanes}" if lanes > 1 else scalar
        if name is None or not dt.is_valid(name):
            raise Malformed(f"{self._where} has dtype number {code}, which this reader lacks")
        return name

    def _take(self, reference: int, of: type | tuple[type, ...]) -> Any:
        """The node a reference means, which must be of a class in ``of`` and, unless shared, not taken before."""
        item = self._look(reference)
        if not isinstance(item, of):
            met = "an attribute's value" if isinstance(item, _Plain) else type(item).__name__
            raise Malformed(f"{self._where} refers to node {reference}, {met}, where {class_names(of)} belongs")
        return item

    def _attr(self, reference: int) -> Any:
        item = self._look(reference)
        if isinstance(item, _Plain):
            return item.value
        if not isinstance(item, Expr):
            raise Malformed(f"{self._where} refers to node {reference}, a {type(item).__name__}, as a value")
        return item

    def _mapping(self, reference: int) -> Any:
        if reference == 0:
            return {}
        value = self._attr(reference)
        if not isinstance(value, dict):
            raise Malformed(f"{self._where} has attributes that are no mapping")
        return value

    def _look(self, reference: int) -> Any:
        if not 1 <= reference <= len(self.table):
            raise Malformed(f"{self._where} refers to node {reference}, which is not before it")
        item = self.table[reference - 1]
        below = 0  # what a shared node holds was counted where it stands
        if not isinstance(item, SHARED):
            if reference not in self.unused:
                raise Malformed(f"{self._where} refers to node {reference}, which already belongs to another")
            self.unused.remove(reference)
            below = self.depth[reference - 1]
        self._depth = max(self._depth, below + 1)
        return item
