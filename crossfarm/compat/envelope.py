"""The frozen envelope around everything on disk, so that a reader of any age can say what a file is.

::

    offset  size  what
    0       8     magic: 89 'C' 'F' 'A' 'R' 'M' 0D 0A   (a text-mode transfer or a cleared top bit shows at once)
    8       4     envelope version, 1
    12      4     length of the header
    16      8     length of the payload
    24      4     CRC-32 of the 24 bytes before and of the header
    28            header: protobuf ``EnvelopeHeader`` (proto/crossfarm/v1/envelope.proto)
                  payload

Integers are little-endian and unsigned. The CRC guards the header, which names the SHA-256 of the payload; neither is
a signature. Same input, same bytes.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NoReturn

from google.protobuf.message import DecodeError

from crossfarm._version import __version__
from crossfarm.errors import Error, InvalidArtifact
from crossfarm.wire.v1.envelope_pb2 import EnvelopeHeader

MAGIC = b"\x89CFARM\r\n"
ENVELOPE_VERSION = 1

_PREFIX = struct.Struct("<8sIIQ")
_CRC = struct.Struct("<I")
_FIXED = _PREFIX.size + _CRC.size
#: A header is some hundred bytes; a length beyond this is damage, not a header.
_MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class Envelope:
    """What ``read`` found.

    Attributes:
        kind, producer, version, min_reader, features, sha256: the header's fields.
        payload: a view into the data that was read, checked against ``sha256``.
        size: bytes of the whole envelope; what follows it belongs to the caller.
    """

    kind: str
    producer: str
    version: int
    min_reader: int
    features: tuple[str, ...]
    sha256: bytes
    payload: memoryview
    size: int


def write(kind: str, payload: bytes, version: int, min_reader: int, features: Sequence[str] = ()) -> bytes:
    """``payload`` in an envelope.

    Args:
        kind: what the payload is; ``read`` is asked for the same.
        version: the format version it is written in.
        min_reader: smallest version a reader must know, computed from what the payload really uses.
        features: optional features the payload uses; written sorted, each once.
    """
    header = EnvelopeHeader(
        kind=kind,
        producer=f"crossfarm {__version__}",
        version=version,
        min_reader=min_reader,
        features=sorted(set(features)),
        sha256=hashlib.sha256(payload).digest(),
    ).SerializeToString(deterministic=True)
    prefix = _PREFIX.pack(MAGIC, ENVELOPE_VERSION, len(header), len(payload))
    return b"".join((prefix, _CRC.pack(zlib.crc32(header, zlib.crc32(prefix))), header, payload))


def read(
    data: bytes | bytearray | memoryview,
    kind: str,
    readable: tuple[int, int],
    *,
    error: type[Error] = InvalidArtifact,
    understood: Collection[str] | None = None,
    trailing: bool = False,
    what: str = "",
) -> Envelope:
    """Opens an envelope, trusting nothing in it.

    Args:
        kind: what the payload must be.
        readable: lowest and highest format version this reader reads.
        error: class raised for everything that is wrong.
        understood: features this reader knows; any other is refused by name. None leaves them to the caller.
        trailing: bytes may follow the envelope (``Envelope.size`` says where).
        what: how messages call the data, as a path; by default "this <kind> file".

    Raises:
        error: not a crossfarm file, truncated, damaged, of another kind, or of a version out of ``readable``.
    """
    view = memoryview(data).cast("B")
    name = what or f"this {kind} file"
    if bytes(view[: len(MAGIC)]) != MAGIC:
        if view.nbytes < len(MAGIC) and MAGIC.startswith(bytes(view)):
            _truncated(error, name, view.nbytes, _FIXED)
        raise error(f"{name} is not a crossfarm file: it begins with {bytes(view[:8])!r}", hint="check the path")
    if view.nbytes < _FIXED:
        _truncated(error, name, view.nbytes, _FIXED)
    _, envelope_version, header_size, payload_size = _PREFIX.unpack_from(view)
    if envelope_version != ENVELOPE_VERSION:
        raise error(
            f"{name} has envelope version {envelope_version}, this reader reads {ENVELOPE_VERSION}",
            hint="read it with the release that wrote it, or a newer one",
        )
    if header_size > _MAX_HEADER_BYTES:
        raise error(f"{name} is damaged: its header claims {header_size} bytes", hint="get a fresh copy of the file")
    body = _FIXED + header_size
    if view.nbytes < body:
        _truncated(error, name, view.nbytes, body + payload_size)
    raw = view[_FIXED:body]
    if zlib.crc32(raw, zlib.crc32(view[: _PREFIX.size])) != _CRC.unpack_from(view, _PREFIX.size)[0]:
        raise error(f"{name} is damaged: its header does not match its checksum", hint="get a fresh copy of the file")
    try:
        header = EnvelopeHeader.FromString(bytes(raw))
    except DecodeError as failure:
        raise error(f"{name} is damaged: its header does not parse", hint="get a fresh copy of the file") from failure
    if header.kind != kind:
        raise error(f"{name} holds {header.kind!r}, not {kind!r}", hint="give it to the command for that kind of file")
    _check_versions(header, kind, readable, error, name)
    unknown = () if understood is None else tuple(f for f in header.features if f not in understood)
    if unknown:
        raise error(
            f"{name} was written by {header.producer} and uses features that this reader does not know: "
            f"{', '.join(unknown)}",
            hint=f"upgrade crossfarm (this is {__version__}), or have the file written without them",
        )
    size = body + payload_size
    if view.nbytes < size:
        _truncated(error, name, view.nbytes, size)
    if view.nbytes > size and not trailing:
        raise error(
            f"{name} is damaged: {view.nbytes - size} bytes follow its end", hint="get a fresh copy of the file"
        )
    payload = view[body:size]
    if hashlib.sha256(payload).digest() != header.sha256:
        raise error(
            f"{name} was changed after it was written: the content does not match its SHA-256",
            hint="get a fresh copy of the file",
        )
    return Envelope(
        kind=header.kind,
        producer=header.producer,
        version=header.version,
        min_reader=header.min_reader,
        features=tuple(header.features),
        sha256=header.sha256,
        payload=payload,
        size=size,
    )


def _check_versions(
    header: EnvelopeHeader, kind: str, readable: tuple[int, int], error: type[Error], name: str
) -> None:
    low, high = readable
    if header.min_reader > high:
        raise error(
            f"{name} comes from the future: {header.producer} wrote it as {kind} version {header.version}, which needs "
            f"a reader of version {header.min_reader}; this one reads {low} to {high}",
            hint=f"upgrade crossfarm (this is {__version__}), or export the file for version {high}",
        )
    if header.version < low:
        raise error(
            f"{name} is of {kind} version {header.version}, written by {header.producer}; this reader reads {low} to "
            f"{high}",
            hint="convert it with a release that reads both",
        )


def _truncated(error: type[Error], name: str, have: int, need: int) -> NoReturn:
    raise error(
        f"{name} is truncated: {have} bytes of at least {need}", hint="get a complete copy of the file (partial write?)"
    )
