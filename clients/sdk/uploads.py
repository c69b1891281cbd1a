"""Bytes to the device: in chunks, resumed where a connection broke, not at all where the device has them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from clients.sdk.future import Future
from clients.sdk.session import Session
from clients.sdk.tensor import allocate_frame
from crossfarm import errors
from crossfarm.wire.tensors import chunks
from crossfarm.wire.v1.session_pb2 import Reply, RequestFrame

#: Up to this size a tensor's bytes are copied and sent behind the caller's back; its failure shows at its first use.
#: Larger ones are waited for, which costs a round trip in addition to a longer time on the wire.
EAGER_BYTES = 1 << 20
#: Broken connections that one upload survives.
_RESUMES = 5

Part = tuple[RequestFrame, memoryview | None]


def upload(session: Session, number: int, shape: tuple[int, ...], dtype: str, view: memoryview) -> None:
    """Makes tensor ``number`` with the content of ``view``.

    Raises:
        LimitExceeded: it does not fit (small tensors: raised at their first use).
        Unavailable: the connection broke again and again.
    """
    allocation: Part = (allocate_frame(number, shape, dtype), None)
    if len(view) <= EAGER_BYTES:
        session.send([allocation, *parts(number, memoryview(bytes(view)))], [])
        return
    arrived: int | None = None
    for broken in range(_RESUMES + 1):
        try:
            if broken:
                arrived = _arrived(session, number)
            todo = [allocation] if arrived is None else []
            sent: Future[None] = Future(session)
            session.send([*todo, *parts(number, view, first=arrived or 0, answered=True)], [sent])
            return sent.result()
        except errors.Unavailable:
            if broken == _RESUMES:
                raise


def upload_constant(session: Session, number: int, shape: tuple[int, ...], dtype: str, view: memoryview) -> bool:
    """Like ``upload``, but sends nothing where the device knows the content from before. True if it did."""
    digest = hashlib.sha256(view).digest()
    reuse: Future[Reply.Progressed] = Future(session)
    session.send(
        [
            (allocate_frame(number, shape, dtype), None),
            (RequestFrame(request=1, reuse=RequestFrame.Reuse(tensor=number, sha256=digest)), None),
        ],
        [reuse],
    )
    if reuse.result().bytes == len(view):
        return True
    kept: Future[None] = Future(session)
    keep = RequestFrame(request=1, keep=RequestFrame.Keep(tensor=number, sha256=digest))
    session.send([*parts(number, view), (keep, None)], [kept])
    kept.result()
    return False


def parts(number: int, view: memoryview, *, first: int = 0, answered: bool = False) -> Iterator[Part]:
    """The frames that fill tensor ``number`` from byte ``first`` on; ``answered``: the last one is."""
    for offset, part in chunks(view, first):
        body = RequestFrame.Upload(tensor=number, offset=offset, bytes=len(part))
        last = answered and offset + len(part) == len(view)
        yield RequestFrame(request=int(last), upload=body), part
    if answered and first >= len(view):
        yield RequestFrame(request=1, ping=RequestFrame.Ping()), None


def _arrived(session: Session, number: int) -> int | None:
    """Leading bytes of the tensor that the device has; None where even the tensor is not there."""
    asked = session.request(RequestFrame(progress=RequestFrame.Progress(tensor=number)))
    try:
        return int(asked.result().bytes)
    except errors.NotFound:
        return None
