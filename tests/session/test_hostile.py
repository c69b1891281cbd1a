"""A client that sends whatever it likes: its frames are refused one by one, and its worker goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfarm.compat.versions import API_VERSION
from crossfarm.wire.channels import open_channel
from crossfarm.wire.v1.session_pb2 import CancelRequest, Reply, RequestFrame, SessionRequest, SessionResponse
from tests.session.harness import TOKEN, WorkerLease

Frame = RequestFrame
HELLO = Frame(request=1, hello=Frame.Hello(lease_id="lease-1", session_token=TOKEN, api_version=API_VERSION))
LARGEST = (1 << 64) - 1


class Attacker:
    """Sessions opened by hand on one worker."""

    def __init__(self, state: Path) -> None:
        self._lease = WorkerLease("cpu", state, {"memory_bytes": 1 << 30})
        self.pid = self._lease.pid
        self._channel = open_channel(self._lease.address)
        grpc.channel_ready_future(self._channel).result(20)  # its socket is older than the first test

    def open(self, *messages: bytes) -> tuple[list[Reply], grpc.Call]:
        """The replies after the welcome, and the call as it ended."""
        call = self._channel.stream_stream("/crossfarm.v1.Session/Open")(
            iter([SessionRequest(frames=[HELLO]).SerializeToString(), *messages]), timeout=20
        )
        replies: list[Reply] = []
        with contextlib.suppress(grpc.RpcError):
            for message in call:
                replies += SessionResponse.FromString(message).replies
        return replies[1:], call

    def send(self, *frames: Frame, data: bytes = b"") -> list[Reply]:
        """The replies to one message of ``frames``, in a session that must end well."""
        message = SessionRequest(frames=frames, data=data, data_bytes=len(data))
        replies, call = self.open(message.SerializeToString())
        assert call.code() is grpc.StatusCode.OK, call.details()
        return replies

    def raw(self, method: str, message: bytes) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            list(self._channel.stream_stream(f"/crossfarm.v1.Session/{method}")(iter([message]), timeout=20))
        assert isinstance(caught.value, grpc.Call)
        return caught.value.code()

    def close(self) -> str:
        """Ends it; what the worker logged."""
        self._channel.close()
        self._lease.release()
        return self._lease._stderr.decode()


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacker]:
    """One worker for all: it must bear them one after the other, without a traceback."""
    attacker = Attacker(tmp_path_factory.mktemp("state"))
    yield attacker
    assert attacker.send(Frame(request=2, ping=Frame.Ping())) == [Reply(request=2, count=1)]
    assert "Traceback" not in attacker.close()


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ([1 << 63], "LimitExceeded"),
        ([LARGEST] * 64, "LimitExceeded"),
        ([LARGEST] * 500, "ArgumentError"),
        ([1] * 500_000, "ArgumentError"),
        ([0] + [LARGEST] * 100_000, "ArgumentError"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused_at_once(attacker: Attacker, shape: list[int], error: str) -> None:
    (reply,) = attacker.send(Frame(request=2, allocate=Frame.Allocate(tensor=9, dtype="float32", shape=shape)))
    assert reply.error.type == error


@pytest.mark.parametrize("dtype", ["", "handle", "int1", "int99999999", "float32x4", "float32" * 100_000])
def test_a_dtype_of_no_elements_is_refused(attacker: Attacker, dtype: str) -> None:
    (reply,) = attacker.send(Frame(request=2, allocate=Frame.Allocate(tensor=9, dtype=dtype, shape=[1])))
    assert reply.error.type == "ArgumentError"
    assert len(reply.error.message) < 200


@pytest.mark.parametrize(
    "frame",
    [
        Frame(upload=Frame.Upload(tensor=1, offset=LARGEST, bytes=4)),
        Frame(upload=Frame.Upload(tensor=1, offset=30, bytes=4)),
        Frame(upload=Frame.Upload(tensor=1, bytes=(1 << 32) - 1)),
        Frame(fetch=Frame.Fetch(tensor=1, offset=LARGEST)),
        Frame(allocate=Frame.Allocate(tensor=1, dtype="int8", shape=[1])),
        Frame(allocate=Frame.Allocate(tensor=0, dtype="int8", shape=[1])),
        Frame(keep=Frame.Keep(tensor=1, sha256=b"../../etc/passwd")),
        Frame(load=Frame.Load(module=1, size=1 << 63, carried=True)),
        Frame(load=Frame.Load(module=1, sha256=b"../../etc/passwd", size=3)),
        Frame(load=Frame.Load(module=1, sha256=bytes(32), size=LARGEST)),
        Frame(load=Frame.Load(module=1, sha256=bytes(32), size=32, tensor=1)),
        Frame(bind=Frame.Bind(call=1, module=7, function="f")),
        Frame(benchmark=Frame.Benchmark(call=9, repeat=(1 << 32) - 1)),
        Frame(profile=Frame.Profile(call=9, repeat=(1 << 32) - 1)),
        Frame(calls=Frame.Calls(call=[9])),
        Frame(hello=HELLO.hello),
        Frame(),
    ],
    ids=lambda frame: frame.WhichOneof("body") or "nothing",
)
def test_a_frame_that_makes_no_sense_is_answered_with_an_error_and_the_session_goes_on(
    attacker: Attacker, frame: Frame
) -> None:
    numbered = Frame(request=3)
    numbered.MergeFrom(frame)
    make = Frame(request=2, allocate=Frame.Allocate(tensor=1, dtype="float32", shape=[8]))
    free = Frame(request=4, free=Frame.Free(tensor=1))
    made, refused, freed = attacker.send(make, numbered, free, data=b"data")
    assert not made.HasField("error")
    assert refused.request == 3
    assert refused.error.message
    assert not freed.HasField("error")


def test_calls_numbered_beyond_the_last_number_are_refused(attacker: Attacker) -> None:
    message = SessionRequest(frames=[Frame(request=LARGEST - 1, calls=Frame.Calls(call=[1, 2, 3]))])
    call = attacker.open(message.SerializeToString())[1]
    assert call.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_hundred_thousand_failing_calls_are_answered_in_messages_of_a_size_that_arrives(attacker: Attacker) -> None:
    replies = attacker.send(Frame(request=2, calls=Frame.Calls(call=[5] * 100_000)))
    assert len(replies) == 100_000
    assert psutil.Process(attacker.pid).memory_info().rss < 400 << 20


@pytest.mark.parametrize("token", ["", "x" * 100_000, "é\x00"])
def test_nobody_cancels_with_another_token(attacker: Attacker, token: str) -> None:
    request = CancelRequest(lease_id="lease-1", session_token=token)
    assert attacker.raw("Cancel", request.SerializeToString()) is grpc.StatusCode.PERMISSION_DENIED
    assert attacker.raw("Open", b"") is grpc.StatusCode.PERMISSION_DENIED
    assert attacker.raw("Open", b"\xff\xff") is grpc.StatusCode.INVALID_ARGUMENT


_NUMBERS = st.one_of(st.integers(0, 3), st.sampled_from([(1 << 32) - 1, 1 << 31]))
_SIZES = st.one_of(st.integers(0, 40), st.sampled_from([1 << 31, 1 << 63, LARGEST]))
_BODIES = st.one_of(
    st.builds(lambda t, s: Frame(allocate=Frame.Allocate(tensor=t, dtype="int8", shape=s)), _NUMBERS, st.lists(_SIZES)),
    st.builds(lambda t, o, n: Frame(upload=Frame.Upload(tensor=t, offset=o, bytes=n)), _NUMBERS, _SIZES, _NUMBERS),
    st.builds(lambda t, o: Frame(fetch=Frame.Fetch(tensor=t, offset=o)), _NUMBERS, _SIZES),
    st.builds(lambda t: Frame(free=Frame.Free(tensor=t)), _NUMBERS),
    st.builds(lambda t: Frame(progress=Frame.Progress(tensor=t)), _NUMBERS),
    st.builds(lambda m, s: Frame(load=Frame.Load(module=m, size=s, carried=True)), _NUMBERS, _SIZES),
    st.builds(lambda c, m: Frame(bind=Frame.Bind(call=c, module=m, function="f")), _NUMBERS, _NUMBERS),
    st.builds(lambda c: Frame(calls=Frame.Calls(call=c)), st.lists(_NUMBERS, max_size=4)),
    st.builds(lambda c, r: Frame(benchmark=Frame.Benchmark(call=c, repeat=r)), _NUMBERS, _NUMBERS),
    st.builds(lambda c, r: Frame(profile=Frame.Profile(call=c, repeat=r)), _NUMBERS, _NUMBERS),
    st.just(Frame(logs=Frame.Logs())),
)


@settings(max_examples=150, deadline=None)
@given(bodies=st.lists(_BODIES, max_size=8), data=st.binary(max_size=64))
def test_any_frames_are_answered(attacker: Attacker, bodies: list[Frame], data: bytes) -> None:
    for number, frame in enumerate(bodies):
        frame.request = 10 + 10 * number
    answered = {reply.request for reply in attacker.send(*bodies, data=data)}
    assert {frame.request for frame in bodies if frame.WhichOneof("body") != "calls"} <= answered


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_end_the_session_and_nothing_else(attacker: Attacker, message: bytes) -> None:
    call = attacker.open(message)[1]
    assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT), call.details()
