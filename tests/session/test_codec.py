"""The session's messages written and read by hand are plain protobuf, to the byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crossfarm.wire.tensors import Packet, call_message, decode_request, decode_response, done_message, encode
from crossfarm.wire.v1.session_pb2 import Reply, RequestFrame, SessionRequest, SessionResponse

requests = st.integers(1, (1 << 64) - 1)


@given(requests, st.integers(1, (1 << 32) - 1))
def test_a_call_is_written_as_protobuf_writes_it(request: int, number: int) -> None:
    frame = RequestFrame(request=request, calls=RequestFrame.Calls(call=[number]))
    assert call_message(request, number) == SessionRequest(frames=[frame]).SerializeToString()


@given(requests)
def test_a_success_is_written_as_protobuf_writes_it(request: int) -> None:
    assert done_message(request) == SessionResponse(replies=[Reply(request=request, count=1)]).SerializeToString()


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=4), requests)
def test_a_payload_travels_as_the_last_field_and_comes_back_as_a_view(parts: list[bytes], request: int) -> None:
    packet: Packet[SessionResponse] = Packet(SessionResponse(replies=[Reply(request=request)]))
    for part in parts:
        packet.add(memoryview(part))
    raw = encode(packet)
    assert SessionResponse.FromString(raw).data == b"".join(parts)
    message, data = decode_response(raw)
    assert bytes(data) == b"".join(parts)
    assert message.replies[0].request == request


@given(st.binary(max_size=400))
def test_a_message_of_another_writer_is_read_too(data: bytes) -> None:
    message = SessionRequest(frames=[RequestFrame(request=7)], data=data)  # without data_bytes
    read, payload = decode_request(message.SerializeToString())
    assert read.frames[0].request == 7
    assert bytes(payload) == data
