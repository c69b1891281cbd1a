"""Bytes to the device: in chunks, resumed where a connection broke, not at all where the device has them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from clients.sdk.future import Future
from clients.sdk.session import Session
from clients.sdk.tensor import allocate_frame
from crossfarm import errors
from crossfarm.wire.tensors import chunks
from crossfarm.wire.v1.session_pb2 import Reply, RequestFrame

#: Up to this size a tensor's bytes are copied and sent behind the caller's back; its failure shows at its first use.
#: Larger ones are waited for, which costs a round trip in addition to a longer time on the wire.
EAGER_BYTES = 1 << 20
#: Constants below this size are sent along whether the device has them or not: looking would take as long.
KEPT_BYTES = 64 << 10
#: Constants that a message names.
_NAMED = 5
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


@dataclass(frozen=True)
class Content:
    """A constant on its way to tensor ``number``.

    Attributes:
        number: what the device calls the tensor.
        shape, dtype, nbytes: of the tensor.
        digest: hex SHA-256 of its bytes.
        name: for people.
        read: gives its bytes, called where the device does not have them; None where nobody here has them either.
    """

    number: int
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    digest: str
    name: str
    read: Callable[[], memoryview] | None


def upload_constant(session: Session, number: int, shape: tuple[int, ...], dtype: str, view: memoryview) -> None:
    """Like ``upload``, but sends nothing where the device knows the content from before."""
    digest = hashlib.sha256(view).hexdigest()
    upload_constants(session, [Content(number, shape, dtype, len(view), digest, "", lambda: view)])


def upload_constants(session: Session, contents: Sequence[Content]) -> None:
    """Makes a tensor of each content. The device is asked for all at once which it knows from before; the others are
    sent one behind the other, and kept there for later leases. Nothing is copied here but what is just being sent.

    Raises:
        LimitExceeded: they do not fit.
        Unavailable: the connection broke again and again.
        NotFound: the content of some is neither on the device nor here.
        InvalidArtifact: what ``read`` raises; then some tensors have no content.
    """
    asked: list[Future[Reply.Progressed]] = []
    frames: list[Part] = []
    for content in contents:
        frames.append((allocate_frame(content.number, content.shape, content.dtype), None))
        if content.nbytes >= KEPT_BYTES:
            reuse = RequestFrame.Reuse(tensor=content.number, sha256=bytes.fromhex(content.digest))
            frames.append((RequestFrame(request=1, reuse=reuse), None))
            asked.append(Future(session))
    session.send(frames, asked)
    answers = iter(asked)
    known = [c.nbytes >= KEPT_BYTES and next(answers).result().bytes == c.nbytes for c in contents]
    _check_here([c for c, there in zip(contents, known) if not there and c.read is None])
    sent = [(content, _send(session, content)) for content, there in zip(contents, known) if not there]
    for content, future in sent:
        for broken in range(_RESUMES + 1):
            try:
                (_send(session, content, again=True) if broken else future).result()
                break
            except errors.Unavailable:
                if broken == _RESUMES:
                    raise


def _check_here(missing: Sequence[Content]) -> None:
    if missing:
        named = ", ".join(f"{c.name} ({c.digest[:12]})" for c in missing[:_NAMED])
        raise errors.NotFound(
            f"the content of {len(missing)} constants is neither on the device nor here: {named}"
            + (", …" if len(missing) > _NAMED else ""),
            hint="open the file that the built artifact was saved to, or add the model's constants: "
            "artifact.with_constants(…)",
        )


def _send(session: Session, content: Content, *, again: bool = False) -> Future[None]:
    """Sends a content; ``again``: what of it is not there, after the connection broke."""
    arrived = _arrived(session, content.number) if again else 0
    frames: list[Part] = []
    if arrived is None:
        frames.append((allocate_frame(content.number, content.shape, content.dtype), None))
    sent: Future[None] = Future(session)
    session.send([*frames, *_content_parts(content, first=arrived or 0)], [sent])
    return sent


def _content_parts(content: Content, *, first: int = 0) -> Iterator[Part]:
    """The frames that fill the content's tensor; the last one, and no other, is answered."""
    kept = content.nbytes >= KEPT_BYTES
    assert content.read is not None
    yield from parts(content.number, content.read(), first=first, answered=not kept)
    if kept:
        keep = RequestFrame.Keep(tensor=content.number, sha256=bytes.fromhex(content.digest))
        yield RequestFrame(request=1, keep=keep), None


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
