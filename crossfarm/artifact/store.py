"""Content-addressed storage of artifacts. ``LocalStore`` is a directory; other stores follow the same protocol."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from crossfarm.artifact.files import SCRATCH_SUFFIX, write_atomically, write_error
from crossfarm.errors import InvalidArtifact, NotFound, ResourceExhausted

_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_digest(digest: str) -> str:
    """``digest`` if it is 64 lower-case hex digits, so that it can never be anything else in a path or a key.

    Raises:
        NotFound: it is anything else (nothing is stored under it).
    """
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise NotFound(f"{str(digest)[:80]!r} is not a digest: 64 lower-case hexadecimal digits")
    return digest


class Store(Protocol):
    """What holds artifacts by the SHA-256 of their bytes, in lower-case hex."""

    def put(self, data: bytes | memoryview) -> str:
        """Keeps ``data`` and returns its digest. Raises ResourceExhausted."""

    def get(self, digest: str) -> bytes:
        """The bytes, verified. Raises NotFound, InvalidArtifact."""

    def has(self, digest: str) -> bool:
        """True when ``get`` would find it."""

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset``; fewer only at the end. Raises NotFound."""

    def size(self, digest: str) -> int:
        """Bytes of the object. Raises NotFound."""

    def upload(self, digest: str, size: int) -> Upload:
        """Begins to take an object in pieces. Raises ResourceExhausted."""


class Upload(Protocol):
    """An object on its way in; a context manager that drops what was not finished."""

    def write(self, data: bytes) -> None:
        """The next bytes. Raises ResourceExhausted, InvalidArtifact when there are more than announced."""

    def finish(self) -> bool:
        """Verifies and keeps the object; False when it was there already. Raises InvalidArtifact."""

    def __enter__(self) -> Upload: ...

    def __exit__(self, *failure: object) -> None: ...


class LocalStore:
    """A directory: ``objects/ab/cdef…``, each written aside, flushed and renamed.

    Any number of processes may use one directory at once. A process killed at any moment leaves at most a scratch file,
    which the next ``LocalStore`` of the directory that finds it older than an hour removes.

    Args:
        directory: created if missing.
        max_bytes: refuse to grow beyond this; None for no limit.

    Raises:
        UsageError: the directory cannot be made.
    """

    _STALE_SECONDS = 3600.0

    def __init__(self, directory: str | os.PathLike[str], *, max_bytes: int | None = None) -> None:
        self.directory = Path(directory)
        self.max_bytes = max_bytes
        self._objects = self.directory / "objects"
        self._incoming = self.directory / "incoming"
        self._lock = threading.Lock()
        try:
            self._objects.mkdir(parents=True, exist_ok=True)
            self._incoming.mkdir(exist_ok=True)
        except OSError as failure:
            raise write_error(failure, self.directory) from failure
        self._sweep()
        self._total = sum(path.stat().st_size for path in self._paths())

    def put(self, data: bytes | memoryview) -> str:
        """Keeps ``data`` and returns its digest; the same bytes twice are kept once. Raises ResourceExhausted."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if not path.exists():
            self._check_room(len(data))
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, data)
            self._grow(len(data))
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes, verified against the digest.

        Raises:
            NotFound: no such object.
            InvalidArtifact: the file was damaged on disk; it is removed, so that putting it again heals the store.
        """
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise self._missing(digest) from None
        if hashlib.sha256(data).hexdigest() != digest:
            self.remove(digest)
            raise InvalidArtifact(
                f"stored artifact {digest[:12]} is damaged on disk; it was removed", hint="build or store it again"
            )
        return data

    def has(self, digest: str) -> bool:
        """True when an object of that digest is there (not verified)."""
        return self._path(digest).is_file()

    def size(self, digest: str) -> int:
        """Bytes of the object. Raises NotFound."""
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            raise self._missing(digest) from None

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset``, not verified: who takes pieces checks the whole. Raises NotFound."""
        try:
            with open(self._path(digest), "rb") as file:
                file.seek(offset)
                return file.read(size)
        except FileNotFoundError:
            raise self._missing(digest) from None

    def upload(self, digest: str, size: int, *, durable: bool = True) -> LocalUpload:
        """Begins to take an object of known digest and size in pieces. Raises ResourceExhausted, NotFound (digest).

        Args:
            durable: wait until the disk has it; else a machine that loses power may have a damaged object, which
                reading finds out.
        """
        self._path(digest)
        self._check_room(size)
        scratch = self._incoming / f"{secrets.token_hex(16)}{SCRATCH_SUFFIX}"
        return LocalUpload(self, scratch, digest, size, durable=durable)

    def used(self, digest: str) -> None:
        """Notes that the object was of use now, see ``by_use``; nothing happens when it is not there."""
        with suppress(OSError):
            os.utime(self._path(digest))

    def by_use(self) -> list[tuple[str, int]]:
        """(digest, bytes) of all objects, those first that were put, or of ``used``, longest ago."""
        found = []
        for path in self._paths():
            with suppress(FileNotFoundError):
                facts = path.stat()
                found.append((facts.st_mtime_ns, path.parent.name + path.name, facts.st_size))
        self._total = sum(size for _, _, size in found)
        return [(digest, size) for _, digest, size in sorted(found)]

    def remove(self, digest: str) -> None:
        """Forgets an object; nothing happens when it is not there."""
        path = self._path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return
        self._grow(-size)

    def digests(self) -> Iterator[str]:
        """Digests of all objects, in no order."""
        return (path.parent.name + path.name for path in self._paths())

    @property
    def total_bytes(self) -> int:
        """Bytes of all objects: counted when opened and by ``by_use``, kept up with what this instance did since."""
        return self._total

    def _paths(self) -> Iterator[Path]:
        for path in self._objects.glob("??/*"):
            if _DIGEST.fullmatch(path.parent.name + path.name):
                yield path

    def _path(self, digest: str) -> Path:
        check_digest(digest)
        return self._objects / digest[:2] / digest[2:]

    def _missing(self, digest: str) -> NotFound:
        return NotFound(f"there is no artifact {digest} in this store", hint="build it, or store it first")

    def _check_room(self, size: int) -> None:
        if self.max_bytes is not None and self._total + size > self.max_bytes:
            raise ResourceExhausted(
                f"the store holds {self._total} of {self.max_bytes} bytes; {size} more do not fit",
                hint="raise the store's limit, or remove artifacts that are not needed",
            )

    def _grow(self, size: int) -> None:
        with self._lock:
            self._total += size

    def _adopt(self, scratch: Path, digest: str, size: int) -> bool:
        path = self._path(digest)
        if path.exists():
            return False
        try:
            path.parent.mkdir(exist_ok=True)
            os.replace(scratch, path)
        except OSError as failure:
            raise write_error(failure, path) from failure
        self._grow(size)
        return True

    def _sweep(self) -> None:
        """Removes scratch files that a killed process left long ago; younger ones may be somebody's at work."""
        newest = max((p.stat().st_mtime for p in (self._incoming, self._objects)), default=0.0)
        for scratch in (*self._incoming.glob(f"*{SCRATCH_SUFFIX}"), *self._objects.glob(f"??/.*{SCRATCH_SUFFIX}")):
            try:
                if newest - scratch.stat().st_mtime > self._STALE_SECONDS:
                    scratch.unlink()
            except FileNotFoundError:
                continue


class LocalUpload:
    """An object on its way into a LocalStore; leaving the ``with`` block unfinished drops it."""

    def __init__(self, store: LocalStore, scratch: Path, digest: str, size: int, *, durable: bool) -> None:
        self._store, self._scratch, self._digest, self._size = store, scratch, digest, size
        self._durable = durable
        self._hash, self._received = hashlib.sha256(), 0
        try:
            self._file = open(scratch, "xb")  # noqa: SIM115 - closed by __exit__
        except OSError as failure:
            raise write_error(failure, scratch) from failure

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes. Raises ResourceExhausted, InvalidArtifact when there are more than announced."""
        self._received += len(data)
        if self._received > self._size:
            raise InvalidArtifact(f"more than the announced {self._size} bytes came for artifact {self._digest[:12]}")
        self._hash.update(data)
        try:
            self._file.write(data)
        except OSError as failure:
            raise write_error(failure, self._scratch) from failure

    def finish(self) -> bool:
        """Verifies and keeps the object; False when it was there already. Raises InvalidArtifact, ResourceExhausted."""
        if self._received != self._size:
            raise InvalidArtifact(f"{self._received} of {self._size} bytes came for artifact {self._digest[:12]}")
        if self._hash.hexdigest() != self._digest:
            raise InvalidArtifact(f"the bytes that came for artifact {self._digest[:12]} do not match its digest")
        try:
            self._file.flush()
            if self._durable:
                os.fsync(self._file.fileno())
            self._file.close()
        except OSError as failure:
            raise write_error(failure, self._scratch) from failure
        return self._store._adopt(self._scratch, self._digest, self._size)

    def __enter__(self) -> LocalUpload:
        return self

    def __exit__(self, *failure: object) -> None:
        try:
            self._file.close()
        except OSError:
            pass  # what could not be flushed is dropped with the file
        self._scratch.unlink(missing_ok=True)
