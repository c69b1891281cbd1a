"""The Compiler service of proto/crossfarm/v1/compiler.proto: requests in, progress and artifacts out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from compiler_service import builds
from compiler_service.cache import BuildCache, build_key, toolchain_identity
from compiler_service.workers import Limits, WorkerPool
from crossfarm.artifact import Artifact
from crossfarm.artifact.store import LocalStore
from crossfarm.compat.versions import ARTIFACT_READABLE, ARTIFACT_VERSION
from crossfarm.errors import InvalidArtifact, InvalidTarget, LimitExceeded, UnsupportedTarget, UserError
from crossfarm.target import KINDS, TAGS, Target
from crossfarm.wire.serving import capabilities, check_api
from crossfarm.wire.status import reports_errors
from crossfarm.wire.v1 import compiler_pb2_grpc
from crossfarm.wire.v1.capabilities_pb2 import Capabilities, GetCapabilitiesRequest
from crossfarm.wire.v1.compiler_pb2 import (
    ArtifactChunk,
    BuildEvent,
    BuildRequest,
    FetchRequest,
    ListTargetsRequest,
    ListTargetsResponse,
    StoreResponse,
)

NAME = "crossfarm.v1.Compiler"
FEATURES = ["build", "multi-target", "fetch-resume", "store"]

#: Artifacts up to this size come with the last event of the build.
INLINE_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20
MAX_TARGETS = 16


@dataclass(frozen=True)
class Settings:
    """How a compiler service runs.

    Attributes:
        directory: holds the artifacts and the build cache.
        workers: builds at once.
        limits: of each build.
        max_module_bytes: of a request's module; gRPC's own limit is 16 MiB for the whole message.
        max_artifact_bytes: of an artifact that is stored from outside.
        max_store_bytes: of all artifacts; None for no limit.
    """

    directory: Path
    workers: int = 2
    limits: Limits = field(default_factory=Limits)
    max_module_bytes: int = 15 << 20
    max_artifact_bytes: int = 1 << 30
    max_store_bytes: int | None = None


class CompilerService(compiler_pb2_grpc.CompilerServicer):
    """The servicer. ``close`` ends its workers and what waits for them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = LocalStore(settings.directory, max_bytes=settings.max_store_bytes)
        self._pool = WorkerPool(settings.workers, settings.limits)  # they warm up while the rest starts
        self._cache = BuildCache(settings.directory / "cache", self.store)
        self._toolchain = toolchain_identity()
        self._lock = threading.Lock()
        self._running: dict[str, builds.Build] = {}

    def close(self) -> None:
        """Ends all builds and workers."""
        self._pool.close()

    @reports_errors
    def GetCapabilities(self, request: GetCapabilitiesRequest, context: grpc.ServicerContext) -> Capabilities:
        limits = self.settings.limits
        return capabilities(
            NAME,
            FEATURES,
            {
                "max_module_bytes": self.settings.max_module_bytes,
                "max_artifact_bytes": self.settings.max_artifact_bytes,
                "max_targets": MAX_TARGETS,
                "max_builds": self.settings.workers,
                "max_waiting_builds": limits.waiting,
                "max_build_ms": int(limits.seconds * 1000),
                "max_build_memory_bytes": limits.memory_bytes,
            },
        )

    @reports_errors
    def Build(self, request: BuildRequest, context: grpc.ServicerContext) -> Iterator[BuildEvent]:
        targets = self._admit(request)
        key = build_key(request.module, targets, request.options, self._toolchain)
        if not request.options.no_cache and (found := self._cache.find(key)) is not None:
            digest, data = found
            yield BuildEvent(done=_inline(BuildEvent.Done(digest=bytes.fromhex(digest), cached=True), data))
            return
        build = self._join_or_start(key, request, targets)
        if not context.add_callback(build.leave):
            build.leave()  # the client has gone already
            return
        for event in build.follow(context.is_active):
            if event.WhichOneof("event") == "done":
                done = BuildEvent.Done()
                done.CopyFrom(event.done)  # the event is shared with other followers
                event = BuildEvent(done=_inline(done, self.store.get(done.digest.hex())))
            yield event

    @reports_errors
    def ListTargets(self, request: ListTargetsRequest, context: grpc.ServicerContext) -> ListTargetsResponse:
        response = ListTargetsResponse()
        for word in (*KINDS, *TAGS):
            target = Target(word)
            reason = target.buildable_reason()
            response.targets.add(tag=word, target=target.to_proto(), buildable=reason is None, reason=reason or "")
        return response

    @reports_errors
    def Fetch(self, request: FetchRequest, context: grpc.ServicerContext) -> Iterator[ArtifactChunk]:
        digest = request.digest.hex()
        size = self.store.size(digest)
        if request.offset > size:
            raise InvalidArtifact(f"artifact {digest[:12]} has {size} bytes; there is nothing at {request.offset}")
        offset = request.offset
        first = ArtifactChunk(digest=request.digest, size=size)
        while True:
            first.data = self.store.read(digest, offset, CHUNK_BYTES)
            offset += len(first.data)
            yield first
            if offset >= size or not first.data:
                return
            first = ArtifactChunk()

    @reports_errors
    def Store(self, request: Iterator[ArtifactChunk], context: grpc.ServicerContext) -> StoreResponse:
        first = next(request, None)
        if first is None or len(first.digest) != 32:
            raise InvalidArtifact("the first chunk of an artifact to store must give its digest and size")
        if first.size > self.settings.max_artifact_bytes:
            raise LimitExceeded(
                f"an artifact of {first.size} bytes is larger than this service's {self.settings.max_artifact_bytes}"
            )
        digest = first.digest.hex()
        if self.store.has(digest):
            return StoreResponse(digest=first.digest, existed=True)
        with self.store.upload(digest, first.size) as upload:
            upload.write(first.data)
            for chunk in request:
                upload.write(chunk.data)
            existed = not upload.finish()
        try:
            Artifact.from_bytes(self.store.get(digest), what=f"the stored file {digest[:12]}")
        except InvalidArtifact:
            self.store.remove(digest)
            raise
        return StoreResponse(digest=first.digest, existed=existed)

    def _admit(self, request: BuildRequest) -> list[Target]:
        """The request's targets, resolved, after everything that can be refused without a build is."""
        check_api("the client", request.api_version or 1, request.api_version or 1, doing="building")
        if request.artifact_version not in (0, ARTIFACT_VERSION):
            raise UserError(
                f"this service writes artifact_version {ARTIFACT_VERSION}, not {request.artifact_version}",
                hint=f"ask for one of {ARTIFACT_READABLE[0]} to {ARTIFACT_READABLE[1]}",
            )
        if len(request.module) > self.settings.max_module_bytes:
            raise LimitExceeded(
                f"the module has {len(request.module)} bytes, this service takes {self.settings.max_module_bytes}",
                hint="build its functions one by one",
            )
        given = [part for message in request.targets for part in Target.from_proto(message).variants()]
        if not given or len(given) > MAX_TARGETS:
            raise InvalidTarget(f"a build needs 1 to {MAX_TARGETS} targets, not {len(given)}")
        for target in given:
            reason = target.buildable_reason()
            if reason is not None:
                raise UnsupportedTarget(
                    f"target {target.label}: {reason}", hint="`crossfarm targets` shows what it can"
                )
        return list(dict.fromkeys(target.resolved() for target in given))

    def _join_or_start(self, key: str, request: BuildRequest, targets: list[Target]) -> builds.Build:
        """The same build under the same time limit where it runs already, or a new one; with one more follower."""
        limit = self.settings.limits.seconds
        seconds = min(limit, request.options.timeout_ms / 1000) if request.options.timeout_ms else limit
        slot = f"{key} {seconds}"
        with self._lock:
            running = None if request.options.no_cache else self._running.get(slot)
            if running is not None and running.join():
                return running
            build = builds.Build(self._pool, request.module, targets, request.options, seconds, self._keeper(key))
            build.join()
            self._running[slot] = build
        threading.Thread(target=self._run, args=(slot, build), name=f"build-{key[:8]}", daemon=True).start()
        return build

    def _run(self, slot: str, build: builds.Build) -> None:
        try:
            build.run()
        finally:
            with self._lock:
                if self._running.get(slot) is build:
                    del self._running[slot]

    def _keeper(self, key: str) -> builds.Keep:
        def keep(artifact: Artifact) -> None:
            self.store.put(artifact.data)
            self._cache.keep(key, artifact.digest)

        return keep


def _inline(done: BuildEvent.Done, data: bytes) -> BuildEvent.Done:
    done.size = len(data)
    if len(data) <= INLINE_BYTES:
        done.artifact = data
    return done
