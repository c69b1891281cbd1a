"""Takes the weights out of an ONNX file without reading them.

protobuf copies every field that it parses. A model's weights are most of its file, so the file's outline is walked
here: the content of large initializers is cut out as views, and the small rest is what protobuf parses.
"""

from __future__ import annotations

from collections.abc import Iterator

from crossfarm.errors import InvalidModule

#: Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto.raw_data.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: Initializers below this many bytes stay where they are.
_SMALL = 1024


def strip(model: memoryview) -> tuple[bytes, dict[int, memoryview]]:
    """A serialized ModelProto without the content of its large initializers, and that content as views of ``model``.

    Returns:
        The rest, and for each initializer that was emptied, by its position in the graph, its ``raw_data``.

    Raises:
        InvalidModule: the bytes end in the middle of a field, or are no protobuf message.
    """
    rest = bytearray()
    cut: dict[int, memoryview] = {}
    position = 0
    for number, whole, content in _fields(model):
        if number != _GRAPH or content is None:
            rest += whole
            continue
        graph = bytearray()
        for inner, inner_whole, inner_content in _fields(content):
            if inner != _INITIALIZER or inner_content is None:
                graph += inner_whole
                continue
            tensor, raw = _without_content(inner_content)
            graph += inner_whole if raw is None else _header(_INITIALIZER, len(tensor)) + tensor
            if raw is not None:
                cut[position] = raw
            position += 1
        rest += _header(_GRAPH, len(graph)) + graph
    return bytes(rest), cut


def _without_content(tensor: memoryview) -> tuple[bytes, memoryview | None]:
    if len(tensor) < _SMALL:
        return b"", None
    raw: memoryview | None = None
    rest = bytearray()
    for number, whole, content in _fields(tensor):
        if number == _RAW_DATA and content is not None and len(content) >= _SMALL:
            raw = content
        elif len(rest) + len(whole) > _SMALL * 64:  # typed fields hold the content: protobuf has to read those
            return b"", None
        else:
            rest += whole
    return bytes(rest), raw


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """Number, whole bytes, and for length-delimited fields the content, of each field."""
    at, end = 0, len(message)
    while at < end:
        start = at
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        content: memoryview | None = None
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        elif kind == _BYTES:
            length, at = _varint(message, at)
            content, at = message[at : at + length], at + length
        else:
            raise InvalidModule("not an ONNX model: its bytes are no protobuf message")
        if number == 0 or at > end:
            raise InvalidModule(
                f"not an ONNX model, or a truncated one: a field at byte {start} ends {max(at - end, 0)} bytes after "
                "the end",
                hint="copy the file again, and compare its size",
            )
        yield number, message[start:at], content


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise InvalidModule("not an ONNX model, or a truncated one: it ends in the middle of a number")


def _header(number: int, length: int) -> bytes:
    found = bytearray([number << 3 | _BYTES])
    while length >= 0x80:
        found.append(length & 0x7F | 0x80)
        length >>= 7
    found.append(length)
    return bytes(found)
