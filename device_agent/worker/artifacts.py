"""Where a worker gets artifacts and large constants from, by digest: the agent's cache, then the farm's stores."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from crossfarm import errors
from crossfarm.artifact.store import LocalStore
from crossfarm.wire import channels, status
from crossfarm.wire.tensors import CHUNK_BYTES
from crossfarm.wire.v1.compiler_pb2 import FetchRequest
from crossfarm.wire.v1.compiler_pb2_grpc import CompilerStub

log = logging.getLogger(__name__)

MAX_ARTIFACT_BYTES = 2 << 30
#: What the agent keeps on its disk at most: of artifacts, and of constants, whose models may be of some GB each. And
#: neither ever takes more than half of the space that others leave.
CACHE_BYTES = 4 << 30
CONSTANT_CACHE_BYTES = 64 << 30
_FETCH_SECONDS = 300.0


class Cache:
    """A directory of contents by digest that makes room for what comes by dropping what was used longest ago.

    Args:
        directory: shared by all of an agent's workers; made on first use.
    """

    def __init__(self, directory: Path, max_bytes: int = CACHE_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    @cached_property
    def _store(self) -> LocalStore:
        return LocalStore(self._directory)

    def get(self, digest: str, size: int) -> memoryview | None:
        """The content, verified; None where it is not there, is damaged or has another size."""
        try:
            data = self._store.get(digest)
        except (errors.NotFound, errors.InvalidArtifact, errors.UsageError):
            return None
        self._store.used(digest)
        return memoryview(data) if len(data) == size else None

    def copy(self, digest: str, size: int, write: Callable[[int, memoryview], None]) -> bool:
        """Hands the content to ``write`` piece by piece, as (offset, bytes). False where it is not there, has another
        size or is damaged: what was written by then is worth nothing."""
        hashed = hashlib.sha256()
        try:
            if self._store.size(digest) != size:
                return False
            for at in range(0, size, CHUNK_BYTES):
                part = self._store.read(digest, at, CHUNK_BYTES)
                hashed.update(part)
                write(at, memoryview(part)[: size - at])
        except (errors.NotFound, errors.UsageError):
            return False
        if hashed.hexdigest() != digest:
            self._store.remove(digest)
            return False
        self._store.used(digest)
        return True

    def put(self, content: bytes) -> None:
        """Keeps the content if there is or can be made room; a cache that cannot is no error."""
        self.keep(hashlib.sha256(content).hexdigest(), len(content), [memoryview(content)])

    def keep(self, digest: str, size: int, parts: Iterable[memoryview]) -> None:
        """Like ``put``, content in pieces. Raises InvalidArtifact where it has another digest."""
        try:
            if self._store.has(digest):
                self._store.used(digest)
                return
            self._make_room(size)
            # Reading finds out what a power failure damaged: nobody waits for the disk.
            with self._store.upload(digest, size, durable=False) as upload:
                for part in parts:
                    upload.write(part)
                upload.finish()
        except errors.InvalidArtifact:
            raise
        except errors.Error as failure:
            log.warning("not kept in the cache: %s", failure.message)

    def _make_room(self, size: int) -> None:
        """Raises ResourceExhausted, having dropped nothing, where the content is too large for this cache."""
        free = shutil.disk_usage(self._store.directory).free
        held = self._store.total_bytes
        if held + size <= min(self._max_bytes, held + free // 2):
            return
        entries = self._store.by_use()
        held = self._store.total_bytes
        most = min(self._max_bytes, held + free // 2)
        if size > most:
            raise errors.ResourceExhausted(f"a content of {size:,} bytes; there is room for {most:,}")
        for digest, freed in entries:
            if held + size <= most:
                break
            self._store.remove(digest)
            held -= freed


class Resolver:
    """Finds artifacts by digest.

    Args:
        cache: of artifacts.
        stores: addresses of compiler services, asked in order.
    """

    def __init__(self, cache: Cache, stores: list[str]) -> None:
        self._cache = cache
        self._stores = stores

    def find(self, digest: str, size: int) -> tuple[bytes, str]:
        """(bytes, where they were): "cache" or the address of a store. Raises NotFound, LimitExceeded."""
        if size > MAX_ARTIFACT_BYTES:
            raise errors.LimitExceeded(f"an artifact of {size:,} bytes; at most {MAX_ARTIFACT_BYTES:,} can be loaded")
        held = self._cache.get(digest, size)
        if held is not None:
            return bytes(held), "cache"
        for address in self._stores:
            try:
                return self.check(_download(address, digest, size), digest, f"the store at {address}"), address
            except errors.Error as failure:
                log.info("artifact %s not had from %s: %s", digest[:12], address, failure.message)
        raise errors.NotFound(
            f"the device has no artifact {digest[:12]} and none of its {len(self._stores)} stores gave it",
            hint="send its bytes along, or check that the compiler service can be reached from the device",
            details={"missing": digest},
        )

    def check(self, data: bytes, digest: str, origin: str) -> bytes:
        """``data`` if its digest is ``digest``. Raises InvalidArtifact naming ``origin``."""
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise errors.InvalidArtifact(
                f"the artifact from {origin} has digest {found[:12]}, not {digest[:12]}: it was damaged on the way",
                hint="send it again",
            )
        return data

    def remember(self, data: bytes) -> None:
        """Keeps an artifact for later leases."""
        self._cache.put(data)


def _download(address: str, digest: str, size: int) -> bytes:
    data = bytearray()
    # The stores' addresses come from the tracker that this agent trusts; the content is checked by its digest.
    with (
        channels.open_channel(address, channels.Security(insecure=True)) as channel,
        status.rpc_errors(doing="fetching the artifact", peer=address),
    ):
        for chunk in CompilerStub(channel).Fetch(FetchRequest(digest=bytes.fromhex(digest)), timeout=_FETCH_SECONDS):
            data += chunk.data
            if len(data) > size:
                raise errors.InvalidArtifact(f"the store at {address} sends more than {size} bytes")
    return bytes(data)
