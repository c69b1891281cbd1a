"""Constants of loaded artifacts on their device: sent once, prepared once, bound to every call that uses them.

Nothing happens before a function that has constants is used. Then the contents that it needs are looked for on the
device and sent where they are not there, the functions that prepare constants run, and contents that only these needed
are given back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from clients.sdk.calls import How, bind_frame, unbind_frame
from clients.sdk.future import Future
from clients.sdk.session import Session
from clients.sdk.tensor import Tensor, allocate_frame
from clients.sdk.uploads import Content, upload_constants
from crossfarm.artifact import Artifact, Signature
from crossfarm.artifact.constants import Origin, origin_of, shape_of
from crossfarm.wire.v1.artifact_pb2 import Parameter, Variant
from crossfarm.wire.v1.session_pb2 import RequestFrame

#: A content as a tensor: its digest, its dtype and its shape.
_Key = tuple[str, str, tuple[int, ...]]


class SharedConstants:
    """Contents on one device, shared by all that is loaded in a session; each lives as long as something uses it.

    Attributes:
        lock: held while constants are made; a call from another thread that needs them waits.
    """

    def __init__(self, session: Session) -> None:
        self.lock = threading.RLock()
        self._session = session
        self._tensors: WeakValueDictionary[_Key, Tensor] = WeakValueDictionary()

    def tensors(self, parameters: Sequence[Parameter], contents: Mapping[str, memoryview]) -> dict[_Key, Tensor]:
        """Tensors for parameters that are stored constants. The caller holds ``lock``.

        Args:
            contents: by hex digest; looked into where the device does not have a content.

        Raises:
            NotFound: the content of some is neither on the device nor in ``contents``.
            InvalidArtifact, LimitExceeded, Unavailable: as ``upload_constants``.
        """
        found: dict[_Key, Tensor] = {}
        made: list[Tensor] = []
        wanted: list[Content] = []
        for parameter in parameters:
            key = key_of(parameter)
            digest, dtype, shape = key
            known = found.get(key) or self._tensors.get(key)
            if known is None or known.freed:
                known = Tensor(self._session, self._session.number(), shape, dtype)
                made.append(known)
                read = partial(contents.__getitem__, digest) if digest in contents else None
                wanted.append(Content(known.number, shape, dtype, known.nbytes, digest, parameter.name, read))
            found[key] = known
        if wanted:
            try:
                upload_constants(self._session, wanted)
            except BaseException:
                _free(made)  # not left to the collector: the error's traceback holds on to them
                raise
        self._tensors.update(found)
        return found


class LoadedConstants:
    """The constants of one loaded artifact.

    Args:
        shared: of the session.
        module: what the device calls the loaded artifact.
        variant: the part of it that the device runs.
        signatures: of its functions.
    """

    def __init__(
        self,
        session: Session,
        shared: SharedConstants,
        module: int,
        artifact: Artifact,
        variant: Variant,
        signatures: Mapping[str, Signature],
    ) -> None:
        self._session = session
        self._shared = shared
        self._module = module
        self._contents = artifact.constants
        self._signatures = signatures
        origins = [origin_of(p) for entry in variant.entry_points for p in entry.parameters]
        self._made = {(o.function, o.output) for o in origins if o is not None and o.function}
        self._makers = {function for function, _ in self._made}
        self._prepared: dict[tuple[str, int], Tensor] = {}
        self._bound: dict[str, dict[int, Tensor]] = {}

    def of(self, signature: Signature) -> Mapping[int, Tensor]:
        """The constants of a function, by parameter; the first time they are brought to the device.

        Raises:
            NotFound: the content of some is not here.
            InvalidArtifact, LimitExceeded, ProgramError, …: they could not be sent or prepared; the next use tries
                again.
        """
        known = self._bound.get(signature.name)
        if known is not None:
            return known
        with self._shared.lock:
            makers = self._makers_of(signature)
            stored = [
                parameter
                for each in (signature, *makers)
                for parameter in (each.parameters[i] for i in each.constants)
                if _origin(parameter).digest
            ]
            tensors = self._shared.tensors(stored, self._contents)
            for maker in makers:
                self._prepare(maker, self._gather(maker, tensors))
            bound = self._gather(signature, tensors)
            if signature.name not in self._makers:
                self._bound[signature.name] = bound
            return bound

    def free(self) -> None:
        """Gives up what was prepared, and the contents that nothing else uses."""
        with self._shared.lock:
            self._bound.clear()
            _free(self._prepared.values())
            self._prepared.clear()

    def _makers_of(self, signature: Signature) -> list[Signature]:
        """Functions that must run for this one, each after those that it needs itself."""
        order: dict[str, Signature] = {}
        todo = [(signature, False)]
        while todo:
            function, entered = todo.pop()
            if entered:
                order.setdefault(function.name, function)
                continue
            todo.append((function, True))
            for index in function.constants:
                origin = _origin(function.parameters[index])
                there = not origin.function or (origin.function, origin.output) in self._prepared
                if not there and origin.function not in order:
                    todo.append((self._signatures[origin.function], False))
        order.pop(signature.name)
        return list(order.values())

    def _gather(self, signature: Signature, stored: Mapping[_Key, Tensor]) -> dict[int, Tensor]:
        bound = {}
        for index in signature.constants:
            parameter = signature.parameters[index]
            origin = _origin(parameter)
            made = self._prepared.get((origin.function, origin.output)) if origin.function else None
            bound[index] = made if made is not None else stored[key_of(parameter)]
        return bound

    def _prepare(self, maker: Signature, constants: Mapping[int, Tensor]) -> None:
        """Runs a function that makes constants, and keeps those that others use."""
        session = self._session
        outputs = {}
        frames: list[tuple[RequestFrame, memoryview | None]] = []
        for index in maker.outputs:
            parameter = maker.parameters[index]
            outputs[index] = Tensor(session, session.number(), shape_of(parameter), parameter.dtype)
            frames.append((allocate_frame(outputs[index].number, outputs[index].shape, parameter.dtype), None))
        given: list[Any] = [outputs[i] if i in outputs else constants[i] for i in range(len(maker.parameters))]
        call = session.number()
        ran: Future[Any] = Future(session)
        run = RequestFrame(request=1)
        run.calls.call.append(call)
        frames.append((bind_frame(session, call, self._module, maker, given, How()), None))
        session.send([*frames, (run, None), (unbind_frame(call), None)], [ran])
        try:
            ran.result()
        except BaseException:
            _free(outputs.values())
            raise
        for number, index in enumerate(maker.outputs):
            if (maker.name, number) in self._made:
                self._prepared[maker.name, number] = outputs[index]


def key_of(parameter: Parameter) -> _Key:
    """What names the tensor of a stored constant."""
    return _origin(parameter).digest, parameter.dtype, shape_of(parameter)


def _free(tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        tensor.free()


def _origin(parameter: Parameter) -> Origin:
    found = origin_of(parameter)
    assert found is not None, parameter.name
    return found
