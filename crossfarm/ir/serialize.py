"""IRModules as bytes: ``proto/crossfarm/v1/ir.proto`` in the envelope of ``crossfarm.compat.envelope``.

Writing is canonical: one module has one sequence of bytes. Reading treats the bytes as hostile: whatever they are, the
result is a module whose every node is of the right kind, or ``InvalidModule``; no recursion, no evaluation, and memory
in proportion to the input. Well-formedness beyond that is the verifier's.

Constant tensors of more than 4096 bytes are named by digest. A file that ``save_module`` wrote has their contents after
the envelope, and is mapped, not read: hundreds of megabytes of weights cost nothing until they are looked at.
``dumps`` leaves them out.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import tempfile
from pathlib import Path

from google.protobuf.message import DecodeError

from crossfarm.compat import envelope
from crossfarm.compat.versions import IR_READABLE, IR_VERSION
from crossfarm.errors import InvalidModule
from crossfarm.ir import constant_files
from crossfarm.ir.module import IRModule
from crossfarm.ir.table_reader import Decoder, Malformed
from crossfarm.ir.table_writer import Encoder
from crossfarm.wire.v1 import ir_pb2

KIND = "ir"
#: Limit on what is read and written; at its worst, parsing takes 30 times the bytes. Larger constants do not count.
MAX_BYTES = 16 << 20


def dumps(mod: IRModule) -> bytes:
    """The module in its envelope, larger constants by digest alone: what a build request carries.

    Raises:
        InvalidModule: something that the format has no place for.
    """
    payload, encoder = _payload(mod)
    return envelope.write(KIND, payload, IR_VERSION, encoder.min_reader)


def loads(data: bytes | bytearray | memoryview, *, check: bool = False, what: str = "this module") -> IRModule:
    """The module in ``data``.

    Args:
        data: what ``dumps`` gave, or a whole file of ``save_module``: constants are views into it then, so it must not
            be changed afterwards. Without contents in it, larger constants are known by digest alone.
        check: also run the verifier.
        what: how messages call the data.

    Raises:
        InvalidModule: not a module, truncated, tampered with, from the future, or malformed inside. A constant whose
            content was changed raises it where the content is first used.
        VerifyError: ill-formed, with ``check``.
    """
    understood = (constant_files.FEATURE,)
    opened = envelope.read(
        data, KIND, IR_READABLE, error=InvalidModule, understood=understood, trailing=True, what=what
    )
    if opened.payload.nbytes > MAX_BYTES:
        raise InvalidModule(f"{what} has {opened.payload.nbytes} bytes, at most {MAX_BYTES} are read")
    contents = constant_files.Contents(memoryview(data).cast("B").toreadonly(), opened.size, what)
    try:
        message = ir_pb2.Module.FromString(bytes(opened.payload))
    except DecodeError as failure:
        raise InvalidModule(f"{what} is malformed: its content does not parse") from failure
    try:
        mod = Decoder(message, contents if constant_files.FEATURE in opened.features else None).module()
    except Malformed as failure:
        raise InvalidModule(
            f"{what}, written by {opened.producer} as ir version {opened.version}, is malformed: {failure}",
            hint=failure.hint,
        ) from None
    contents.check_end()
    if check:
        from crossfarm.ir.verify import verify

        verify(mod)
    return mod


def digest(mod: IRModule) -> bytes:
    """SHA-256 of the module's canonical bytes, without the envelope: the same for every release that writes them."""
    return hashlib.sha256(_payload(mod)[0]).digest()


def min_reader(mod: IRModule) -> int:
    """The smallest ir_version whose readers understand everything this module really uses."""
    return _payload(mod)[1].min_reader


def save_module(mod: IRModule, path: str | os.PathLike[str]) -> None:
    """Writes the module, with the contents of its constants, to ``path`` whole or not at all: a file beside it, flushed
    to disk, then renamed over it. Contents are written from where they are, without a copy.

    Raises:
        InvalidModule: something that the format has no place for.
        NotFound: the content of a constant is not here.
        OSError: the file cannot be written.
    """
    payload, encoder = _payload(mod)
    constants = tuple(encoder.apart.values())
    constant_files.check_known(constants, mod.name)
    features = (constant_files.FEATURE,) if constants else ()
    head = envelope.write(KIND, payload, IR_VERSION, encoder.min_reader, features)
    target = Path(path)
    handle, scratch = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(head)
            constant_files.write(file, len(head), constants)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o666 & ~_umask())
        os.replace(scratch, target)
    except BaseException:
        os.unlink(scratch)
        raise


def load_module(path: str | os.PathLike[str], *, check: bool = False) -> IRModule:
    """The module in the file ``path``, which is mapped: constants are read where they are first used.

    The file may be replaced (as ``save_module`` does) while the module lives, but not written to in place.
    Raises as ``loads`` does, and OSError where the file cannot be read.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        data: mmap.mmap | bytes
        if stat.S_ISREG(status.st_mode) and status.st_size:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        else:  # a pipe, or nothing at all
            data = file.read()
    return loads(memoryview(data), check=check, what=os.fspath(path))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _payload(mod: IRModule) -> tuple[bytes, Encoder]:
    encoder = Encoder()
    message = encoder.module(mod)
    try:
        data = message.SerializeToString(deterministic=True)
    except ValueError as failure:  # protobuf's own size limit
        raise InvalidModule(f"module {mod.name!r} is too large to write: {failure}") from failure
    if len(data) > MAX_BYTES:
        raise InvalidModule(f"module {mod.name!r} takes {len(data)} bytes, at most {MAX_BYTES} are written")
    return data, encoder
