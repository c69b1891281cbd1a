"""Tensor bytes on the wire: the messages of ``session.proto`` with their payload joined and split by hand.

A session's messages end in one ``bytes data`` field that holds the payload of all their frames. protobuf would copy it
three times on its way; here it is appended to the serialized rest with one copy, and taken apart as views of the
received bytes without any. What travels is plain protobuf all the same: any other implementation reads and writes it.

Elements are little-endian, compact, row-major.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from crossfarm.errors import ArgumentError
from crossfarm.wire.v1.session_pb2 import SessionRequest, SessionResponse

#: Payload of one message. Smaller chunks cost calls, larger ones fall out of the CPU's cache between the copies on the
#: way and delay the frames that wait behind them: of 256 KiB to 2 MiB measured, no size is clearly better.
CHUNK_BYTES = 1 << 19

#: Options of session channels and servers, on top of those of ``crossfarm.wire.channels``: a window wide enough that
#: one stream fills a fast link of some latency (64 KiB, the default, is 3 MB/s at 20 ms).
STREAM_OPTIONS: list[tuple[str, int]] = [
    ("grpc.http2.lookahead_bytes", 8 << 20),
    ("grpc.http2.max_frame_size", 1 << 20),
]

_DATA_BYTES_TAG = 1 << 3 | 5  # field 1, fixed32
_DATA_TAG = bytes([15 << 3 | 2])  # field 15, length-delimited
_HEAD = 5  # the tag and value of data_bytes
_NOTHING = memoryview(b"")

M = TypeVar("M", SessionRequest, SessionResponse)


@dataclass(slots=True)
class Packet(Generic[M]):
    """A message to be sent and the payload of its frames, in the frames' order."""

    message: M
    parts: list[memoryview] = field(default_factory=list)
    size: int = 0

    def add(self, part: memoryview) -> None:
        """Appends the payload of the frame that was added last."""
        self.parts.append(part)
        self.size += len(part)


def encode(packet: Packet[Any]) -> bytes:
    """The packet's bytes; the payload is copied once."""
    if not packet.parts:
        return bytes(packet.message.SerializeToString())
    packet.message.data_bytes = packet.size
    return b"".join([packet.message.SerializeToString(), _data_prefix(packet.size), *packet.parts])


def call_message(request: int, number: int) -> bytes:
    """The SessionRequest of one call of bound number ``number``, written out.

    A client that waits for each result sends nothing else. The processor has slept when its turn comes, and code that
    ran long ago is slow: every layer left out on this way shows in the time of a round trip.
    """
    name = _varint(number)
    calls = b"\x62" + _varint(len(name) + 2) + b"\x0a" + _varint(len(name)) + name
    frame = b"\x08" + _varint(request) + calls
    return b"\x12" + _varint(len(frame)) + frame


def done_message(request: int) -> bytes:
    """The SessionResponse that says that ``request`` succeeded, and nothing else."""
    reply = b"\x08" + _varint(request) + b"\x10\x01"
    return b"\x12" + _varint(len(reply)) + reply


def decoder(kind: type[M]) -> Callable[[bytes], tuple[M, memoryview]]:
    """A function from received bytes to (message without its data, view of the data)."""
    parse = kind.FromString

    def decode(raw: bytes) -> tuple[M, memoryview]:
        if raw and raw[0] == _DATA_BYTES_TAG and len(raw) > _HEAD:
            size = int.from_bytes(raw[1:_HEAD], "little")
            prefix = _data_prefix(size)
            start = len(raw) - size
            end = start - len(prefix)
            if end >= _HEAD and raw[end:start] == prefix:
                return parse(raw[:end]), memoryview(raw)[start:]
        message = parse(raw)  # no payload, or fields in another order than ours
        return message, memoryview(message.data) if message.data else _NOTHING

    return decode


decode_request = decoder(SessionRequest)
decode_response = decoder(SessionResponse)


def bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    """The elements of an array as a flat view of bytes, copied only where they are not compact and little-endian.

    Raises ArgumentError for an array of Python objects.
    """
    if array.dtype.hasobject:
        raise ArgumentError("an array of Python objects has no bytes to send", hint="give it a numeric dtype")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).data


def writable_bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    """The memory of a compact array as a writable flat view of bytes: what ``fill`` receives into."""
    return array.reshape(-1).view(np.uint8).data


def chunks(view: memoryview, first: int = 0) -> Sequence[tuple[int, memoryview]]:
    """(offset, part) of a payload from byte ``first`` on, each part of at most CHUNK_BYTES."""
    return [(at, view[at : at + CHUNK_BYTES]) for at in range(first, len(view), CHUNK_BYTES)]


def _data_prefix(size: int) -> bytes:
    """Tag and length of the ``data`` field."""
    return _DATA_TAG + _varint(size)


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
