"""The compiler service as a client sees it: build, what it can build for, and its artifact store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clients.sdk.outage import Outage
from crossfarm.artifact import Artifact
from crossfarm.compat.versions import API_READABLE, API_VERSION
from crossfarm.errors import InfrastructureError, Unavailable
from crossfarm.target import Target
from crossfarm.wire import serving
from crossfarm.wire.channels import PLAINTEXT, Security, open_channel
from crossfarm.wire.v1 import capabilities_pb2, compiler_pb2
from crossfarm.wire.v1.compiler_pb2_grpc import CompilerStub

if TYPE_CHECKING:
    from crossfarm.ir.module import IRModule

#: Artifacts travel in pieces of this size, well below the largest message.
CHUNK_BYTES = 1 << 20

#: What may be given where a target is expected.
TargetLike = str | Mapping[str, Any] | Target


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is.

    Attributes:
        ahead: builds that are served first; 0 once this one runs.
        target, step: what is being done, for which target; "" while it waits.
        index, count: the step's number, from 1, of how many; count is 0 for what comes before the first.
    """

    ahead: int = 0
    target: str = ""
    step: str = ""
    index: int = 0
    count: int = 0


@dataclass(frozen=True)
class BuildResult:
    """A finished build.

    Attributes:
        artifact: what was built, checked against its digest, with the constants of the module that this program has.
        cached: True if it had been built before.
        seconds: time the server spent building, waiting for its turn not counted.
        steps: seconds by the name of the pipeline's step.
    """

    artifact: Artifact
    cached: bool
    seconds: float
    steps: dict[str, float]


@dataclass(frozen=True)
class TargetInfo:
    """A target that the service knows by name: its tag or kind, and why it cannot build for it, "" if it can."""

    name: str
    target: Target
    reason: str

    @property
    def buildable(self) -> bool:
        return not self.reason


class Compiler:
    """A client of one compiler service. ``Farm.compiler`` makes it; ``close`` it otherwise.

    Attributes:
        address: host:port of the service.
    """

    def __init__(self, address: str, *, security: Security = PLAINTEXT) -> None:
        self.address = address
        self._channel = open_channel(address, security)
        self._stub = CompilerStub(self._channel)
        self._outage = Outage()

    def build(
        self,
        module: IRModule,
        targets: Sequence[Target],
        *,
        opt_level: int | None = None,
        keep_sources: bool = False,
        schedule: str = "",
        timeout: float | None = None,
        use_cache: bool = True,
        on_progress: Callable[[BuildProgress], None] | None = None,
    ) -> BuildResult:
        """Builds ``module`` for ``targets``, one variant each; see ``Farm.build`` for arguments and errors."""
        from crossfarm.ir.serialize import dumps

        request = compiler_pb2.BuildRequest(
            module=dumps(module),
            targets=[target.to_proto() for target in targets],
            options=compiler_pb2.BuildOptions(
                opt_level=opt_level or 0,
                opt_level_set=opt_level is not None,
                keep_sources=keep_sources,
                schedule=schedule,
                timeout_ms=round((timeout or 0) * 1000),
                no_cache=not use_cache,
            ),
            api_version=API_VERSION,
        )
        # a build is the same however often it is asked for, so one that the service lost is asked for again
        done = self._outage.ride_out(lambda: self._build_once(request, on_progress), "building", self.address)
        data = done.artifact or self._fetch(done.digest, done.size)
        if hashlib.sha256(data).digest() != done.digest:
            raise InfrastructureError(
                f"the artifact from the compiler service at {self.address} is not the one it announced",
                hint="build again; if it happens again, its store is damaged",
            )
        artifact = Artifact.from_bytes(data)
        if artifact.constant_sizes:
            artifact = artifact.with_constants(_ModuleConstants(module))
        return BuildResult(
            artifact=artifact,
            cached=done.cached,
            seconds=done.seconds,
            steps=_add_up(done.steps),
        )

    def fetch(self, digest: str) -> Artifact:
        """The stored artifact with this digest (hex sha256), without the content of constants. Raises NotFound."""
        return Artifact.from_bytes(self._fetch(bytes.fromhex(digest), 0))

    def store(self, artifact: Artifact) -> str:
        """Puts ``artifact`` into the store, without the content of constants, and returns its digest; one that is there
        already is not sent in full."""
        data = artifact.data

        def chunks() -> Iterator[compiler_pb2.ArtifactChunk]:
            yield compiler_pb2.ArtifactChunk(
                digest=bytes.fromhex(artifact.digest), size=len(data), data=data[:CHUNK_BYTES]
            )
            for start in range(CHUNK_BYTES, len(data), CHUNK_BYTES):
                yield compiler_pb2.ArtifactChunk(data=data[start : start + CHUNK_BYTES])

        answer = self._outage.ride_out(
            lambda: self._stub.Store(chunks()), f"storing artifact {artifact.digest[:12]}", self.address
        )
        return str(answer.digest.hex())

    def targets(self) -> list[TargetInfo]:
        """The targets known by name, and whether this service can build for them."""
        answer = self._outage.ride_out(
            lambda: self._stub.ListTargets(compiler_pb2.ListTargetsRequest()), "listing targets", self.address
        )
        return [
            TargetInfo(known.tag, Target.from_proto(known.target), "" if known.buildable else known.reason or "unknown")
            for known in answer.targets
        ]

    def capabilities(self) -> capabilities_pb2.Capabilities:
        """The versions, features and limits of the service. Raises InfrastructureError if it speaks no version of
        ours."""
        low, high = API_READABLE
        answer = self._outage.ride_out(
            lambda: self._stub.GetCapabilities(
                capabilities_pb2.GetCapabilitiesRequest(client_api_low=low, client_api_high=high)
            ),
            "asking for capabilities",
            self.address,
        )
        serving.check_api(f"the compiler service at {self.address}", answer.api_low, answer.api_high, doing="building")
        return answer

    def close(self) -> None:
        """Ends the connection; again is nothing."""
        self._channel.close()

    def _build_once(
        self, request: compiler_pb2.BuildRequest, on_progress: Callable[[BuildProgress], None] | None
    ) -> compiler_pb2.BuildEvent.Done:
        call = self._stub.Build(request)
        try:
            for event in call:
                match event.WhichOneof("event"):
                    case "done":
                        return event.done
                    case "queued" if on_progress is not None:
                        on_progress(BuildProgress(ahead=event.queued.ahead))
                    case "step" if on_progress is not None:
                        step = event.step
                        on_progress(BuildProgress(0, step.target, step.name, step.index + 1, step.count))
        finally:
            call.cancel()  # a build that nobody waits for any more ends
        raise Unavailable(f"the compiler service at {self.address} ended the build without a result")

    def _fetch(self, digest: bytes, size: int) -> bytes:
        """The bytes of an artifact, going on where it stopped when the service goes away in between."""
        received = bytearray()

        def fetch_rest() -> None:
            for chunk in self._stub.Fetch(compiler_pb2.FetchRequest(digest=digest, offset=len(received))):
                received.extend(chunk.data)

        self._outage.ride_out(fetch_rest, f"fetching artifact {digest.hex()[:12]}", self.address)
        if size and len(received) != size:
            raise InfrastructureError(
                f"artifact {digest.hex()[:12]} arrived with {len(received)} of {size} bytes", hint="fetch it again"
            )
        return bytes(received)


class _ModuleConstants(Mapping[str, memoryview]):
    """The contents that a module's constants have here, by hex digest; each is read when it is looked up."""

    def __init__(self, module: IRModule) -> None:
        from crossfarm.ir.graph.visit import constants

        self._data = {each.data.digest: each.data for each in constants(module) if each.data.known}

    def __getitem__(self, digest: str) -> memoryview:
        return self._data[digest].view

    def __contains__(self, digest: object) -> bool:
        return digest in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)


def _add_up(steps: Iterable[compiler_pb2.BuildEvent.StepTime]) -> dict[str, float]:
    """Seconds by name; a pass may run more than once, and for several targets."""
    total: dict[str, float] = {}
    for step in steps:
        total[step.name] = total.get(step.name, 0.0) + step.seconds
    return total
