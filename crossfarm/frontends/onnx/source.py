"""Reads models: bytes, files and protos to a ModelProto and the content of its initializers."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, defs, numpy_helper

from crossfarm.errors import InvalidModule, NotFound
from crossfarm.frontends.onnx.dtypes import DTYPES, UNPACKED, dtype_of
from crossfarm.frontends.onnx.wire import strip
from crossfarm.ir import dtype as dt

Array = np.ndarray[Any, np.dtype[Any]]
#: The oldest version of the ai.onnx operators that is read.
OLDEST_OPSET = 6
#: What numpy can hold.
_MOST_DIMENSIONS = 64


class Source:
    """A model and where its weights are.

    Attributes:
        model: without the content of large initializers where it came from a file or from bytes.
        name: for messages.
        opsets: domain → version; ai.onnx is "".
    """

    def __init__(self, model: str | os.PathLike[str] | bytes | ModelProto) -> None:
        """Raises InvalidModule: no ONNX model, truncated, or of an opset that is not known; OSError: no such file."""
        self._raw: Mapping[int, memoryview] = {}
        self._folder: Path | None = None
        self._files: dict[Path, Array] = {}
        if isinstance(model, ModelProto):
            self.name = model.graph.name or "model"
            self.model = model
        elif isinstance(model, bytes):
            self.name = "model"
            self.model, self._raw = _parse(memoryview(model), "these bytes")
        else:
            path = Path(model)
            self.name, self._folder = path.name, path.resolve().parent
            self.model, self._raw = _parse(_mapped(path), str(path))
        self.opsets = self._checked_opsets()

    def initializers(self) -> dict[str, Array]:
        """Name → content of each, views of the file's bytes where they can be.

        Raises:
            NotFound: a file with external data is missing.
            InvalidModule: a path outside the model's folder, content of another size than its shape, a dtype that is
                not known, sparse initializers.
        """
        if self.model.graph.sparse_initializer:
            name = self.model.graph.sparse_initializer[0].values.name
            raise InvalidModule(
                f"{self.name}: initializer {name!r} is sparse", hint="export the model with dense initializers"
            )
        found: dict[str, Array] = {}
        for position, tensor in enumerate(self.model.graph.initializer):
            found[tensor.name] = self.content(tensor, self._raw.get(position))
        return found

    def content(self, tensor: TensorProto, raw: memoryview | None = None) -> Array:
        """The content of a tensor of the model; ``raw`` where it was cut out of it. Raises as ``initializers``."""
        what = f"{self.name}: tensor {tensor.name!r}"
        if tensor.data_location == TensorProto.EXTERNAL:
            raw = self._external(tensor, what)
        shape = tuple(tensor.dims)
        if min(shape, default=0) < 0 or len(shape) > _MOST_DIMENSIONS:
            raise InvalidModule(f"{what} has the shape {list(shape[: _MOST_DIMENSIONS + 1])}, which no tensor has")
        if tensor.data_type in UNPACKED:
            packed = tensor
            if raw is not None:
                packed = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=bytes(raw))
            return _converted(packed, what).astype(UNPACKED[tensor.data_type])
        dtype = dt.to_numpy(dtype_of(tensor.data_type, what))
        if raw is None and tensor.HasField("raw_data"):
            raw = memoryview(tensor.raw_data)
        if raw is None:
            return _converted(tensor, what).astype(dtype, copy=False)
        expected = math.prod(shape) * dtype.itemsize
        if len(raw) != expected:
            raise InvalidModule(
                f"{what} holds {len(raw)} bytes; {DTYPES[tensor.data_type]}{list(shape)} has {expected}",
                hint="the file was cut or changed: export the model again",
            )
        return np.frombuffer(raw, dtype).reshape(shape)

    def _external(self, tensor: TensorProto, what: str) -> memoryview:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if self._folder is None:
            raise InvalidModule(
                f"{what} is in the file {location!r} beside the model, and the model came without a folder",
                hint="load the model by its path",
            )
        try:
            path = (self._folder / location).resolve()
            there = path.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, a NUL
            raise InvalidModule(f"{what} is in {location[:80]!r}, which is no path: {error}") from None
        if not location or not path.is_relative_to(self._folder):
            raise InvalidModule(
                f"{what} is in {location!r}, which is outside the model's folder",
                hint="put the file beside the model, and export with a relative location",
            )
        if path not in self._files:
            if not there:
                raise NotFound(
                    f"{what} is in {location!r}, and there is no such file in {self._folder}",
                    hint="copy the model's external data beside it",
                )
            try:
                size = path.stat().st_size
                self._files[path] = np.memmap(path, np.uint8, mode="r") if size else np.zeros(0, np.uint8)
            except OSError as error:
                raise InvalidModule(f"{what} is in {location!r}, which cannot be read: {error.strerror}") from None
        whole = self._files[path]
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries["length"]) if "length" in entries else len(whole) - offset
        except ValueError:
            raise InvalidModule(f"{what}: its offset or length in {location!r} is no number") from None
        if offset < 0 or length < 0 or offset + length > len(whole):
            raise InvalidModule(
                f"{what} is at bytes {offset} to {offset + length} of {location!r}, which has {len(whole)}",
                hint="the file was cut or belongs to another model: copy it again",
            )
        return whole[offset : offset + length].data

    def _checked_opsets(self) -> dict[str, int]:
        if not self.model.HasField("graph") or not self.model.opset_import:
            raise InvalidModule(
                f"{self.name} is not an ONNX model: it has no graph, or names no operator set",
                hint="check the file: models for inference end in .onnx",
            )
        opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in self.model.opset_import}
        version, newest = opsets.get("", OLDEST_OPSET), defs.onnx_opset_version()
        if version > newest:
            raise InvalidModule(
                f"{self.name} uses version {version} of the ai.onnx operators; this onnx package knows {newest}",
                hint="install a newer onnx, or export the model for an older opset",
            )
        if version < OLDEST_OPSET:
            raise InvalidModule(
                f"{self.name} uses version {version} of the ai.onnx operators; {OLDEST_OPSET} is the oldest read",
                hint="convert it with onnx.version_converter",
            )
        return opsets


def _converted(tensor: TensorProto, what: str) -> Array:
    """What onnx makes of a tensor whose elements are not all in ``raw_data``."""
    try:
        return numpy_helper.to_array(tensor)
    except (TypeError, ValueError) as error:
        raise InvalidModule(
            f"{what} does not hold what its shape and its type say: {error}",
            hint="the file was cut or changed: export the model again",
        ) from None


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise InvalidModule(f"{path} is empty, not an ONNX model", hint="copy the file again")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _parse(content: memoryview, what: str) -> tuple[ModelProto, Mapping[int, memoryview]]:
    try:
        rest, raw = strip(content)
        model = ModelProto()
        model.ParseFromString(rest)
    except DecodeError as error:
        raise InvalidModule(f"{what}: not an ONNX model, or a truncated one: {error}") from None
    except InvalidModule as error:
        raise InvalidModule(f"{what}: {error.message}", hint=error.hint or "check the file") from None
    return model, raw


def attribute(proto: Any, source: Source) -> Any:
    """An attribute's content in Python: numbers, text, tuples of them, arrays for tensors, protos for graphs."""
    kind = proto.type
    if kind == proto.STRING:
        return proto.s.decode(errors="replace")
    if kind == proto.STRINGS:
        return tuple(s.decode(errors="replace") for s in proto.strings)
    if kind == proto.TENSOR:
        return source.content(proto.t)
    fields: Mapping[int, str] = {proto.FLOAT: "f", proto.INT: "i", proto.GRAPH: "g", proto.TYPE_PROTO: "tp"}
    lists: Mapping[int, str] = {proto.FLOATS: "floats", proto.INTS: "ints", proto.GRAPHS: "graphs"}
    if kind in fields:
        return getattr(proto, fields[kind])
    if kind in lists:
        values: Sequence[Any] = getattr(proto, lists[kind])
        return tuple(values)
    return proto
