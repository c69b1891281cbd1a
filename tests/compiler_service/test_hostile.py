"""Requests that no honest client sends: each gets its reason, nothing stays of it, and the service goes on."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfarm import errors
from crossfarm.ir.serialize import dumps
from crossfarm.wire.status import rpc_errors
from crossfarm.wire.v1.artifact_pb2 import Target
from crossfarm.wire.v1.compiler_pb2 import ArtifactChunk, BuildOptions, BuildRequest, FetchRequest
from tests.compiler_service.conftest import Service, add, done

GOOD = dumps(add(7.0))
LARGEST = (1 << 64) - 1


def _nested(depth: int) -> Target:
    target = Target(kind="llvm")
    for _ in range(depth):
        target = Target(kind="llvm", host=target)
    return target


def _with(name: str, **value: object) -> Target:
    target = Target(kind="llvm")
    target.attributes[name].CopyFrom(Target.Attribute(**value))  # type: ignore[arg-type]
    return target


@pytest.mark.parametrize(
    "module",
    [b"", os.urandom(1000), os.urandom(15 << 20), GOOD[:50], GOOD[:60] + bytes([GOOD[60] ^ 255]) + GOOD[61:]],
    ids=["empty", "garbage", "much garbage", "truncated", "changed"],
)
def test_what_is_no_module_is_refused_as_that(service: Service, module: bytes) -> None:
    with pytest.raises(errors.InvalidModule), rpc_errors():
        list(service.stub.Build(BuildRequest(module=module, targets=[Target(kind="llvm")]), timeout=30))


@pytest.mark.parametrize(
    "target",
    [
        _nested(60),
        Target(kind="x" * 100_000),
        Target(kind="llvm", tag="\x1b[2J"),
        _with("cpu", text='znver4" -load=/tmp/x.so'),
        _with("features", texts=Target.Texts(values=["+x" * 10_000] * 10)),
        _with("vector_bits", number=-(1 << 63)),
        _with("cores", text="many"),
        _with("arch"),
    ],
    ids=[
        "deep",
        "a long kind",
        "an unprintable tag",
        "options as cpu",
        "features",
        "negative",
        "no number",
        "no value",
    ],
)
def test_a_target_that_cannot_be_is_refused_as_that(service: Service, target: Target) -> None:
    with pytest.raises(errors.InvalidTarget) as caught, rpc_errors():
        list(service.stub.Build(BuildRequest(module=GOOD, targets=[target]), timeout=30))
    assert len(str(caught.value)) < 2000


def test_an_optimization_level_that_is_none_is_refused(service: Service) -> None:
    options = BuildOptions(opt_level=(1 << 32) - 1, opt_level_set=True)
    with pytest.raises(errors.BuildFailed, match="levels are 0 to 3"), rpc_errors():
        list(service.stub.Build(BuildRequest(module=GOOD, targets=[Target(kind="llvm")], options=options), timeout=30))


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [ArtifactChunk(data=b"abc")],
        [ArtifactChunk(digest=b"../../../../../../etc/passwd", size=3, data=b"abc")],
        [ArtifactChunk(digest=b"x" * 32, size=3, data=b"abc")],
        [ArtifactChunk(digest=b"x" * 32, size=LARGEST, data=b"abc")],
        [ArtifactChunk(digest=b"x" * 32, size=100, data=b"abc")],
        [ArtifactChunk(digest=b"x" * 32, size=1, data=b"abc")],
        [ArtifactChunk(digest=hashlib.sha256(b"abc").digest(), size=3, data=b"abc")],
    ],
    ids=["nothing", "no digest", "a path", "another digest", "endless", "too short", "too long", "no artifact"],
)
def test_what_is_no_artifact_leaves_nothing_in_the_store(service: Service, chunks: list[ArtifactChunk]) -> None:
    def files() -> set[str]:
        return {str(path) for path in (service.directory / "store").rglob("*") if path.is_file()}

    before = files()
    with pytest.raises((errors.InvalidArtifact, errors.LimitExceeded)), rpc_errors():
        service.stub.Store(iter(chunks), timeout=30)
    assert files() == before


def test_fetching_beyond_the_end_or_by_a_path_is_refused(service: Service) -> None:
    digest = done(service.build(add(8.0))).digest
    with pytest.raises(errors.InvalidArtifact, match="there is nothing at"), rpc_errors():
        list(service.stub.Fetch(FetchRequest(digest=digest, offset=LARGEST), timeout=30))
    for path in (b"", b"../../../etc/passwd"):
        with pytest.raises(errors.NotFound, match="not a digest"), rpc_errors():
            list(service.stub.Fetch(FetchRequest(digest=path), timeout=30))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["Build", "Fetch", "Store"]), st.binary(max_size=80))
def test_random_bytes_end_the_call_and_nothing_else(service: Service, method: str, message: bytes) -> None:
    call = service.channel.stream_stream(f"/crossfarm.v1.Compiler/{method}")(iter([message]), timeout=10)
    with contextlib.suppress(grpc.RpcError):
        list(call)
    assert call.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN), call.details()
    assert service.process.poll() is None


def test_no_peer_has_made_the_service_log_a_traceback(
    start: Callable[..., Service], capfd: pytest.CaptureFixture[str]
) -> None:
    channel = start("--workers", "1").channel
    for method in ("Build", "Fetch", "Store"):
        with pytest.raises(grpc.RpcError):
            list(channel.stream_stream(f"/crossfarm.v1.Compiler/{method}")(iter([b"\xff\xff"]), timeout=10))
    assert "Traceback" not in capfd.readouterr().err
