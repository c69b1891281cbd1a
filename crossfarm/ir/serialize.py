"""IRModules as bytes: ``proto/crossfarm/v1/ir.proto`` in the envelope of ``crossfarm.compat.envelope``.

Writing is canonical: one module has one sequence of bytes. Reading treats the bytes as hostile: whatever they are, the
result is a module whose every node is of the right kind, or ``InvalidModule``; no recursion, no evaluation, and memory
in proportion to the input. Well-formedness beyond that is the verifier's.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from crossfarm.compat import envelope
from crossfarm.compat.versions import IR_READABLE, IR_VERSION
from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.schema import BY_CLASS, BY_WIRE, DTYPES, Field, NodeSpec, children, type_problem
from crossfarm.ir.stmt import Stmt
from crossfarm.ir.visitor import MAX_DEPTH
from crossfarm.wire.v1 import ir_pb2

KIND = "ir"
#: Limits on what is read and written. A large network's module is some hundred thousand nodes of about 10 bytes; at its
#: worst, parsing takes 30 times the bytes.
MAX_BYTES = 16 << 20
MAX_NODES = 1 << 20


def dumps(mod: IRModule) -> bytes:
    """The module in its envelope. Raises InvalidModule for what the format has no place for."""
    payload, min_reader = _payload(mod)
    return envelope.write(KIND, payload, IR_VERSION, min_reader)


def loads(data: bytes | bytearray | memoryview, *, check: bool = False, what: str = "this module") -> IRModule:
    """The module in ``data``.

    Args:
        check: also run the verifier.
        what: how messages call the data.

    Raises:
        InvalidModule: not a module, truncated, tampered with, from the future, or malformed inside.
        VerifyError: ill-formed, with ``check``.
    """
    opened = envelope.read(data, KIND, IR_READABLE, error=InvalidModule, understood=(), what=what)
    if opened.payload.nbytes > MAX_BYTES:
        raise InvalidModule(f"{what} has {opened.payload.nbytes} bytes, at most {MAX_BYTES} are read")
    try:
        message = ir_pb2.Module.FromString(bytes(opened.payload))
    except DecodeError as failure:
        raise InvalidModule(f"{what} is malformed: its content does not parse") from failure
    try:
        mod = _Decoder(message).module()
    except _Malformed as failure:
        raise InvalidModule(
            f"{what}, written by {opened.producer} as ir version {opened.version}, is malformed: {failure}",
            hint="the program that wrote it is at fault; write it again with crossfarm",
        ) from None
    if check:
        from crossfarm.ir.verify import verify

        verify(mod)
    return mod


def digest(mod: IRModule) -> bytes:
    """SHA-256 of the module's canonical bytes, without the envelope: the same for every release that writes them."""
    return hashlib.sha256(_payload(mod)[0]).digest()


def min_reader(mod: IRModule) -> int:
    """The smallest ir_version whose readers understand everything this module really uses."""
    return _payload(mod)[1]


def save_module(mod: IRModule, path: str | os.PathLike[str]) -> None:
    """Writes the module to ``path`` whole or not at all: a file beside it, flushed to disk, then renamed over it."""
    data = dumps(mod)
    target = Path(path)
    handle, scratch = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o666 & ~_umask())
        os.replace(scratch, target)
    except BaseException:
        os.unlink(scratch)
        raise


def load_module(path: str | os.PathLike[str], *, check: bool = False) -> IRModule:
    """The module in the file ``path``. Raises as ``loads`` does, and OSError where the file cannot be read."""
    return loads(Path(path).read_bytes(), check=check, what=os.fspath(path))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _payload(mod: IRModule) -> tuple[bytes, int]:
    encoder = _Encoder()
    message = encoder.module(mod)
    try:
        data = message.SerializeToString(deterministic=True)
    except ValueError as failure:  # protobuf's own size limit
        raise InvalidModule(f"module {mod.name!r} is too large to write: {failure}") from failure
    if len(data) > MAX_BYTES:
        raise InvalidModule(f"module {mod.name!r} takes {len(data)} bytes, at most {MAX_BYTES} are written")
    return data, encoder.min_reader


class _Encoder:
    """Appends nodes to the table in post-order, with a stack of its own instead of recursion."""

    def __init__(self) -> None:
        self.message = ir_pb2.Module()
        self.shared: dict[Any, int] = {}  # Var or Buffer (by identity) → its reference
        self.min_reader = 1

    def module(self, mod: IRModule) -> ir_pb2.Module:
        self.message.name = _writable_text(mod.name, "the module's name")
        self.message.attrs = self._mapping(mod.attrs)
        for name, func in mod.functions.items():
            if not isinstance(func, PrimFunc):
                raise InvalidModule(f"function {name!r} is a {type(func).__name__}, which the format does not have")
            entry = self.message.functions.add()
            entry.name = _writable_text(name, "a function's name")
            entry.params.extend(self._add(p) for p in func.params)
            entry.body = self._add(func.body)
            entry.attrs = self._mapping(func.attrs)
            entry.private = bool(func.private)
        return self.message

    def _mapping(self, attrs: Any) -> int:
        return self._add(attrs) if attrs else 0

    def _add(self, root: Any) -> int:
        """Adds ``root`` and what it holds; returns its reference."""
        stack = [_Frame(root)]
        while True:
            frame = stack[-1]
            child = next(frame.todo, _DONE)
            if child is not _DONE:
                if isinstance(child, Var | Buffer) and child in self.shared:
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
                if not dt.is_valid(value):
                    raise InvalidModule(f"cannot write this module: {type(owner).__name__} has unknown dtype {value!r}")
                scalar, lanes = dt.split(value)
                self.min_reader = max(self.min_reader, DTYPES.since(scalar))
                setattr(target, f.name, DTYPES.id_of[scalar] + 256 * (lanes - 1))
            case "integer":
                if not -(1 << 63) <= value < 1 << 64:
                    raise InvalidModule(f"cannot write this module: the constant {value} does not fit 64 bits")
                setattr(target, f.name, value - (1 << 64) if value >= 1 << 63 else value)
            case "float":
                setattr(target, f.name, math.nan if math.isnan(value) else value)
            case "text":
                setattr(target, f.name, _writable_text(value, f"{type(owner).__name__}.{f.name}"))
            case _:
                setattr(target, f.name, value)


_DONE = object()


class _Frame:
    """A node on the way down: its children left to do, and the references of those done."""

    def __init__(self, item: Any) -> None:
        self.item = item
        # empty annotations have no node; see _encode_field
        self.todo = (c for label, c in children(item) if not (label == "annotations" and not c))
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


class _Malformed(Exception):
    """What is wrong with the table, in words; becomes InvalidModule."""


class _Plain:
    """An attribute's value in the table, apart from the nodes, so that one is never taken for the other."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Decoder:
    """Rebuilds nodes in table order: what a node refers to is already there."""

    def __init__(self, message: ir_pb2.Module) -> None:
        self.message = message
        self.table: list[Any] = []
        self.depth: list[int] = []
        self.unused: set[int] = set()  # references of nodes that still need their one parent

    def module(self) -> IRModule:
        if len(self.message.nodes) > MAX_NODES:
            raise _Malformed(f"{len(self.message.nodes)} nodes, at most {MAX_NODES} are read")
        for position, node in enumerate(self.message.nodes):
            self._where = f"node {position + 1}"
            self._depth = 1
            item = self._node(node)
            if self._depth > MAX_DEPTH:
                raise _Malformed(f"{self._where} nests deeper than {MAX_DEPTH} levels")
            self.table.append(item)
            self.depth.append(self._depth)
            if not isinstance(item, Var | Buffer):
                self.unused.add(position + 1)
        functions: dict[str, PrimFunc] = {}
        for entry in self.message.functions:
            self._where = f"function {entry.name!r}"
            if entry.name in functions:
                raise _Malformed(f"{self._where} is there twice")
            functions[entry.name] = PrimFunc(
                params=tuple(self._take(p, (Var, Buffer)) for p in entry.params),
                body=self._take(entry.body, (Stmt,)),
                attrs=self._mapping(entry.attrs),
                private=entry.private,
            )
        self._where = "the module"
        mod = IRModule(functions, self._mapping(self.message.attrs), name=self.message.name)
        if self.unused:
            raise _Malformed(f"node {min(self.unused)} belongs to nothing")
        return mod

    def _node(self, node: ir_pb2.Node) -> Any:
        wire = node.WhichOneof("node")
        if wire is None:
            raise _Malformed(f"{self._where} is of a kind this reader does not know")
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
                    raise _Malformed(f"{self._where} has {len(value.keys)} keys and {len(value.values)} values")
                if any(a >= b for a, b in zip(value.keys, value.keys[1:])):
                    raise _Malformed(f"{self._where} has keys out of order")
                return {key: self._attr(r) for key, r in zip(value.keys, value.values)}
            case _:
                return value

    def _field(self, source: Any, f: Field, spec: NodeSpec) -> Any:
        value = getattr(source, f.name)
        match f.kind:
            case "node":
                return self._take(value, (f.of,))
            case "optional":
                return self._take(value, (f.of,)) if value else None
            case "nodes":
                return tuple(self._take(r, (f.of,)) for r in value)
            case "annotations":
                return self._mapping(value)
            case "attr":
                return self._attr(value)
            case "choice":
                assert f.numbers is not None
                if value not in f.numbers.name_of:
                    raise _Malformed(f"{self._where} has {f.numbers.what} number {value}, which this reader lacks")
                return f.numbers.name_of[value]
            case "dtype":
                return self._dtype(value)
            case "integer":
                # the node's dtype says whether the 64 bits are signed
                unsigned = DTYPES.name_of.get(source.dtype % 256, "").startswith("uint")
                return value + (1 << 64) if unsigned and value < 0 else value
            case _:
                return value

    def _dtype(self, code: int) -> str:
        scalar, lanes = DTYPES.name_of.get(code % 256), code // 256 + 1
        name = f"{scalar}x{lanes}" if lanes > 1 else scalar
        if name is None or not dt.is_valid(name):
            raise _Malformed(f"{self._where} has dtype number {code}, which this reader lacks")
        return name

    def _take(self, reference: int, of: tuple[type, ...]) -> Any:
        """The node a reference means, which must be of a class in ``of`` and, unless shared, not taken before."""
        item = self._look(reference)
        if not isinstance(item, of):
            wanted = " or ".join(cls.__name__ for cls in of)
            met = "an attribute's value" if isinstance(item, _Plain) else type(item).__name__
            raise _Malformed(f"{self._where} refers to node {reference}, {met}, where {wanted} belongs")
        return item

    def _attr(self, reference: int) -> Any:
        item = self._look(reference)
        if isinstance(item, _Plain):
            return item.value
        if not isinstance(item, Expr):
            raise _Malformed(f"{self._where} refers to node {reference}, a {type(item).__name__}, as a value")
        return item

    def _mapping(self, reference: int) -> Any:
        if reference == 0:
            return {}
        value = self._attr(reference)
        if not isinstance(value, dict):
            raise _Malformed(f"{self._where} has attributes that are no mapping")
        return value

    def _look(self, reference: int) -> Any:
        if not 1 <= reference <= len(self.table):
            raise _Malformed(f"{self._where} refers to node {reference}, which is not before it")
        item = self.table[reference - 1]
        below = 0  # what a shared node holds was counted where it stands
        if not isinstance(item, Var | Buffer):
            if reference not in self.unused:
                raise _Malformed(f"{self._where} refers to node {reference}, which already belongs to another")
            self.unused.remove(reference)
            below = self.depth[reference - 1]
        self._depth = max(self._depth, below + 1)
        return item
