"""The compiler service as its clients see it: builds, cache, store, targets, refusals."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from crossfarm.artifact import Artifact, DeviceCapabilities, select_variant
from crossfarm.errors import (
    Error,
    InfrastructureError,
    InvalidArtifact,
    InvalidModule,
    InvalidTarget,
    LimitExceeded,
    NotFound,
    UnsupportedTarget,
    UserError,
    VerifyError,
)
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.serialize import dumps
from crossfarm.ir.stmt import BufferStore
from crossfarm.target import TAGS, Target
from crossfarm.wire.status import rpc_errors
from crossfarm.wire.v1.capabilities_pb2 import GetCapabilitiesRequest
from crossfarm.wire.v1.compiler_pb2 import (
    ArtifactChunk,
    BuildOptions,
    BuildRequest,
    FetchRequest,
    ListTargetsRequest,
)
from tests.artifact import samples
from tests.compiler_service.conftest import Service, add, done, large


def test_a_build_gives_an_artifact_that_this_machine_can_run(service: Service) -> None:
    event = done(service.build(add(1.0), "native"))
    artifact = Artifact.from_bytes(event.artifact)
    assert artifact.digest == event.digest.hex()
    assert artifact.size == event.size
    assert artifact.name == "Sample"
    assert select_variant(artifact, DeviceCapabilities.of_host()).entry_points[0].name == "main"
    assert artifact.code(artifact.variants[0]).startswith(b"\x7fELF")
    assert list(artifact.module().functions) == ["main"]
    assert artifact.manifest.toolchain["llvm"]
    assert artifact.manifest.build_options["opt_level"] == "3"
    assert not artifact.sources()


def test_the_same_request_is_built_once_and_then_found(service: Service) -> None:
    first, second = done(service.build(add(2.0))), done(service.build(add(2.0)))
    assert (first.cached, second.cached) == (False, True)
    assert first.digest == second.digest
    assert first.artifact == second.artifact


def test_building_again_without_the_cache_gives_the_same_bytes(service: Service) -> None:
    digests = {done(service.build(add(3.0), "x86-64-v3", no_cache=True)).digest for _ in range(3)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("targets", "options"),
    [(("x86-64-v2",), {}), (("x86-64-v3",), {"opt_level": 1}), (("x86-64-v3",), {"keep_sources": True})],
)
def test_another_target_or_option_is_another_build(
    service: Service, targets: tuple[str, ...], options: dict[str, object]
) -> None:
    base = done(service.build(add(4.0), "x86-64-v3")).digest
    assert done(service.build(add(4.0), *targets, **options)).digest != base


def test_a_time_limit_does_not_make_it_another_build(service: Service) -> None:
    service.build(add(5.0))
    assert done(service.build(add(5.0), timeout_ms=100_000)).cached


def test_sources_are_kept_where_asked(service: Service) -> None:
    artifact = Artifact.from_bytes(done(service.build(add(1.0), keep_sources=True)).artifact)
    assert "define" in artifact.sources()["llvm.ll"]
    assert artifact.manifest.build_options["keep_sources"] == "true"


def test_progress_names_the_steps_in_order_and_then_their_times(service: Service) -> None:
    events = service.build(add(6.0), no_cache=True)
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[-1] == "done"
    assert set(kinds[:-1]) <= {"queued", "step"}
    steps = [event.step for event in events if event.WhichOneof("event") == "step"]
    assert [step.name for step in steps[:2]] == ["start", "verify"]
    assert [step.index for step in steps] == list(range(len(steps)))
    assert {step.count for step in steps[2:]} == {len(steps)}
    assert [time.name for time in done(events).steps] == [step.name for step in steps[2:]]
    assert 0 < sum(time.seconds for time in done(events).steps) <= done(events).seconds * (1 + 1e-9)


def test_several_targets_make_one_artifact_with_a_variant_each(service: Service) -> None:
    events = service.build(add(7.0), "any-cpu")
    artifact = Artifact.from_bytes(done(events).artifact)
    assert [variant.requires.arch for variant in artifact.variants] == ["x86_64", "aarch64"]
    assert {event.step.target for event in events if event.WhichOneof("event") == "step"} == {
        "x86-64-v3",
        "aarch64-linux-generic",
    }
    assert done(service.build(add(7.0), "x86-64-v3", "aarch64-linux-generic")).digest == done(events).digest


def test_the_same_build_asked_by_many_at_once_runs_once(service: Service) -> None:
    module = large(300)
    found: list[tuple[bytes, float, bool]] = []

    def ask() -> None:
        event = done(service.build(module))
        found.append((event.digest, event.seconds, event.cached))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    built = {(digest, seconds) for digest, seconds, cached in found if not cached}
    assert len(found) == 6
    assert len(built) == 1  # two builds never take the very same time
    assert len({digest for digest, _, _ in found}) == 1


def test_an_artifact_is_fetched_by_digest_and_resumed_in_the_middle(service: Service) -> None:
    event = done(service.build(add(8.0)))
    chunks = list(service.stub.Fetch(FetchRequest(digest=event.digest)))
    assert chunks[0].size == event.size
    assert b"".join(chunk.data for chunk in chunks) == event.artifact
    rest = b"".join(c.data for c in service.stub.Fetch(FetchRequest(digest=event.digest, offset=1000)))
    assert rest == event.artifact[1000:]
    assert not b"".join(c.data for c in service.stub.Fetch(FetchRequest(digest=event.digest, offset=event.size)))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (FetchRequest(digest=b"\0" * 32), NotFound),
        (FetchRequest(digest=b"../../etc"), NotFound),
        (FetchRequest(), NotFound),
    ],
)
def test_what_is_not_in_the_store_cannot_be_fetched(
    service: Service, request_: FetchRequest, error: type[Error]
) -> None:
    with pytest.raises(error), rpc_errors():
        list(service.stub.Fetch(request_))


def _chunks(data: bytes, digest: bytes | None = None, size: int | None = None, pieces: int = 3) -> list[ArtifactChunk]:
    step = len(data) // pieces + 1
    parts = [ArtifactChunk(data=data[i : i + step]) for i in range(0, len(data), step)] or [ArtifactChunk()]
    parts[0].digest = hashlib.sha256(data).digest() if digest is None else digest
    parts[0].size = len(data) if size is None else size
    return parts


def test_an_artifact_from_elsewhere_can_be_stored_once(service: Service) -> None:
    artifact = samples.artifact("x86-64-v2")
    first = service.stub.Store(iter(_chunks(artifact.data)))
    assert (first.digest.hex(), first.existed) == (artifact.digest, False)
    assert service.stub.Store(iter(_chunks(artifact.data))).existed
    assert b"".join(c.data for c in service.stub.Fetch(FetchRequest(digest=first.digest))) == artifact.data


@pytest.mark.parametrize(
    ("chunks", "error", "message"),
    [
        ([], InvalidArtifact, "must give its digest"),
        (_chunks(b"no artifact at all"), InvalidArtifact, "not a crossfarm file"),
        (_chunks(b"abc", digest=b"\1" * 32), InvalidArtifact, "do not match its digest"),
        (_chunks(b"abc", size=2), InvalidArtifact, "more than the announced"),
        (_chunks(b"abc", size=4), InvalidArtifact, "3 of 4 bytes"),
        (_chunks(b"abc", size=1 << 40), LimitExceeded, "larger than"),
    ],
)
def test_only_whole_artifacts_are_stored(
    service: Service, chunks: list[ArtifactChunk], error: type[Error], message: str
) -> None:
    with pytest.raises(error) as failure, rpc_errors():
        service.stub.Store(iter(chunks))
    assert message in failure.value.message
    for chunk in chunks[:1]:
        with pytest.raises(NotFound), rpc_errors():
            list(service.stub.Fetch(FetchRequest(digest=chunk.digest)))


def test_every_tag_is_listed_with_whether_it_can_be_built(service: Service) -> None:
    listed = {info.tag: info for info in service.stub.ListTargets(ListTargetsRequest()).targets}
    assert set(TAGS) | {"llvm", "opencl", "cuda", "vulkan"} == set(listed)
    assert listed["raspberry-pi/4b"].buildable
    assert all(info.buildable and not info.reason for info in listed.values())
    assert Target.from_proto(listed["raspberry-pi/4b"].target) == Target("raspberry-pi/4b")


def test_capabilities_and_health_are_served(service: Service) -> None:
    capabilities = service.stub.GetCapabilities(GetCapabilitiesRequest())
    assert capabilities.api_low <= 1 <= capabilities.api_high
    assert capabilities.artifact.high == 1
    assert capabilities.limits["max_builds"] == 2
    assert "store" in capabilities.features
    answer = health_pb2_grpc.HealthStub(service.channel).Check(
        health_pb2.HealthCheckRequest(service="crossfarm.v1.Compiler")
    )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def _ill_formed() -> IRModule:
    a, stray = Buffer("A", (IntImm(8),)), Var("stray")
    return IRModule({"main": PrimFunc((a,), BufferStore(a, BufferLoad(a, (IntImm(0),)), (stray,)))})


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (BuildRequest(module=b"nonsense", targets=[Target("llvm").to_proto()]), InvalidModule, "not a crossfarm file"),
        (BuildRequest(module=dumps(add(1.0))), InvalidTarget, "needs 1 to 16 targets"),
        (
            BuildRequest(module=dumps(add(1.0)), targets=[Target("x86_64-apple-darwin").to_proto()]),
            UnsupportedTarget,
            "cannot build",
        ),
        (
            BuildRequest(module=dumps(add(1.0)), targets=[Target("llvm").to_proto()], artifact_version=7),
            UserError,
            "writes artifact_version 1",
        ),
        (
            BuildRequest(module=dumps(add(1.0)), targets=[Target("llvm").to_proto()], api_version=7),
            InfrastructureError,
            "api_version 7",
        ),
        (BuildRequest(module=dumps(_ill_formed()), targets=[Target("llvm").to_proto()]), VerifyError, "stray"),
        (
            BuildRequest(
                module=dumps(add(1.0)), targets=[Target("llvm").to_proto()], options=BuildOptions(opt_level=9)
            ),
            UserError,
            "level",
        ),
        (BuildRequest(module=b"x" * ((15 << 20) + 1), targets=[Target("llvm").to_proto()]), LimitExceeded, "bytes"),
        (BuildRequest(module=b"x" * (17 << 20), targets=[Target("llvm").to_proto()]), LimitExceeded, ""),
    ],
    ids=["nonsense", "no-target", "target", "artifact-version", "api-version", "ill-formed", "level", "large", "huge"],
)
def test_a_request_that_cannot_be_met_is_refused_with_the_reason(
    service: Service, request_: BuildRequest, error: type[Error], message: str
) -> None:
    with pytest.raises(error) as failure, rpc_errors(doing="building"):
        list(service.stub.Build(request_))
    assert message in failure.value.message
    assert not done(service.build(add(9.0), no_cache=True)).cached  # it goes on


def test_a_restart_even_by_kill_keeps_the_cache(start: Callable[..., Service]) -> None:
    first = start("--workers", "1")
    digest = done(first.build(add(1.0))).digest
    first.kill()
    second = start("--workers", "1")
    event = done(second.build(add(1.0)))
    assert (event.cached, event.digest) == (True, digest)


@pytest.mark.parametrize("damage", ["artifact", "entry", "torn entry", "missing artifact"])
def test_a_damaged_cache_is_built_anew(service: Service, damage: str) -> None:
    module = add(10.0 + len(damage))
    before = done(service.build(module))
    store = service.directory / "store"
    digest = before.digest.hex()
    stored = store / "objects" / digest[:2] / digest[2:]
    (entry,) = [path for path in store.glob("cache/??/*") if path.read_text().strip() == digest]
    match damage:
        case "artifact":
            stored.write_bytes(before.artifact[:-1] + b"?")
        case "entry":
            entry.write_bytes(b"\xff" * 65)
        case "torn entry":
            entry.write_text(digest[:10])
        case _:
            stored.unlink()
    after = done(service.build(module))
    assert (after.cached, after.digest) == (False, before.digest)
    assert done(service.build(module)).cached
