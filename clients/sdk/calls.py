"""One call as frames: what is sent up, bound, run, fetched and freed, all in one go."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from clients.sdk.future import Future
from clients.sdk.session import Session
from clients.sdk.tensor import Array, Tensor, allocate_frame, free_frame
from clients.sdk.uploads import Part, parts
from crossfarm import errors
from crossfarm.artifact import Signature
from crossfarm.ir import dtype as dtypes
from crossfarm.wire.tensors import bytes_of, writable_bytes_of
from crossfarm.wire.v1.artifact_pb2 import Parameter
from crossfarm.wire.v1.session_pb2 import RequestFrame


class How(NamedTuple):
    """How a call runs, beside its arguments; part of what a binding is remembered by.

    Attributes:
        timeout: seconds it may take; None for the session's limit.
        threads: that its parallel loops run on; 0 for as many as ``cpus``, or else as the device may use.
        cpus: where they run; empty for anywhere.
    """

    timeout: float | None = None
    threads: int = 0
    cpus: tuple[int, ...] = ()

    @classmethod
    def of(cls, timeout: float | None, threads: int | None, cpus: Iterable[int] | None) -> How:
        """What a caller says of it, checked. Raises ArgumentError."""
        if timeout is None and threads is None and cpus is None:
            return _AS_USUAL
        if timeout is not None and not timeout > 0:
            raise errors.ArgumentError(f"timeout={timeout!r} must be a positive number of seconds")
        whole = isinstance(threads, int) and not isinstance(threads, bool)
        if threads is not None and not (whole and 1 <= threads < 1 << 31):
            raise errors.ArgumentError(f"threads={threads!r} must be a whole number of at least 1")
        try:
            numbers = () if cpus is None else tuple(operator.index(cpu) for cpu in cpus)
        except TypeError:
            numbers = (-1,)
        if (cpus is not None and not numbers) or any(not 0 <= cpu < 1 << 31 for cpu in numbers):
            raise errors.ArgumentError(f"cpus={cpus!r} must be a list of CPU numbers, such as [0, 1]")
        return cls(timeout, threads or 0, numbers)


_AS_USUAL = How()


@dataclass(frozen=True)
class BoundCall:
    """Arguments that are bound on the device.

    Attributes:
        number: what the device calls it.
        tensors: of the caller, used by it.
        constants: used by it, and there as long as it is.
        made: the answer to the binding, which may not have come.
        result: what a call returns.
    """

    number: int
    tensors: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    made: Future[Any]
    result: Any

    def good(self) -> bool:
        """False once the device cannot have it any more. Raises NotFound where a tensor was freed."""
        for tensor in self.tensors:
            tensor.check()
        return self.made._error is None


class CallPlan:
    """A call whose arguments are at least partly arrays of this process, or whose outputs are still to be made.

    Raises:
        ArgumentError: an argument does not fit the signature.
    """

    def __init__(
        self,
        session: Session,
        module: int,
        signature: Signature,
        placed: Sequence[Any],
        how: How,
        *,
        own: bool,
    ) -> None:
        binding = signature.bind(placed)
        callers = [(a, p) for a, p in zip(placed, signature.parameters) if a is not None and not p.constant]
        given = [a for a, p in callers if p.kind == Parameter.BUFFER]
        on_device = bool(given) and all(isinstance(a, Tensor) for a in given)
        self._session = session
        self._before: list[Part] = []
        self._after: list[Part] = []
        self._fetches: list[tuple[int, Array]] = []  # tensor numbers, arrays that receive them
        self._write_back: list[tuple[Array, Array]] = []  # the caller's, what was received for it
        results: list[Any] = []
        arguments: list[Any] = []
        for index, (parameter, argument) in enumerate(zip(signature.parameters, placed)):
            if parameter.kind == Parameter.SCALAR or isinstance(argument, Tensor):
                arguments.append(argument)
                if index in signature.outputs:
                    results.append(argument)
                continue
            shape = binding.shapes[index]
            assert shape is not None
            number = session.number()
            self._before.append((allocate_frame(number, shape, parameter.dtype), None))
            if argument is None and on_device:
                made = Tensor(session, number, shape, parameter.dtype)
                arguments.append(made)
                results.append(made)
                continue
            arguments.append(_Number(number))
            self._after.append((free_frame(number), None))
            if index not in signature.outputs:
                view = bytes_of(argument)
                self._before.extend(parts(number, memoryview(bytes(view)) if own else view))
            if parameter.role == Parameter.IN:
                continue
            received = np.empty(shape, dtypes.to_numpy(parameter.dtype))
            self._fetches.append((number, received))
            if argument is not None:
                if not argument.flags.writeable:
                    raise errors.ArgumentError(
                        f"{signature.name}: argument {parameter.name} is written, but the array given is read-only",
                        hint="pass a writable array, such as a copy",
                    )
                self._write_back.append((argument, received))
            if index in signature.outputs:
                results.append(received if argument is None else argument)
        self.number = session.number()
        bind = bind_frame(session, self.number, module, signature, arguments, how)
        self._before.append((bind, None))
        self._after.insert(0, (unbind_frame(self.number), None))
        self._results = results

    def send(self, frame: RequestFrame, *, fetch: bool) -> Future[Any]:
        """Sends everything with ``frame`` (a Calls where it is empty, a Benchmark or a Profile) as what is run.

        Returns:
            A future of the results; of the frame's own answer where they are not to be fetched.
        """
        if frame.HasField("benchmark"):
            frame.benchmark.call = self.number
        elif frame.HasField("profile"):
            frame.profile.call = self.number
        else:
            frame.calls.call.append(self.number)
        ran: Future[Any] = Future(self._session)
        wanted = [ran]
        fetching: list[Part] = []
        for number, array in self._fetches if fetch else ():
            future: Future[Any] = Future(self._session)
            future._sink = writable_bytes_of(array)
            wanted.append(future)
            fetching.append((RequestFrame(request=1, fetch=RequestFrame.Fetch(tensor=number)), None))
        self._session.send([*self._before, (frame, None), *fetching, *self._after], wanted)
        last = wanted[-1]
        last._earlier = tuple(wanted[:-1])
        if fetch:
            last._after = self._finish
        return last

    def _finish(self) -> Any:
        for given, received in self._write_back:
            given[...] = received
        return pack(self._results)


@dataclass(frozen=True)
class _Number:
    """A tensor that lives for one call."""

    number: int


def pack(results: Sequence[Any]) -> Any:
    """Results as a caller gets them: None, the one, or a tuple."""
    return None if not results else results[0] if len(results) == 1 else tuple(results)


def bind_frame(
    session: Session, number: int, module: int, signature: Signature, arguments: Sequence[Any], how: How
) -> RequestFrame:
    """The frame that binds ``arguments`` (things with a ``number``, or scalars) to a function.

    Raises UnsupportedTarget where the device's agent knows nothing of threads: it would ignore what is asked.
    """
    bind = RequestFrame.Bind(call=number, module=module, function=signature.name)
    if how.timeout is not None:
        bind.limit_ms = max(1, min(round(how.timeout * 1000), (1 << 32) - 1))
    if how.threads or how.cpus:
        if not session.welcome.result().cpus:
            raise errors.UnsupportedTarget(
                "calls on this device cannot choose their threads",
                hint="leave threads= and cpus= out; an agent of an older release may need an upgrade",
            )
        bind.threads = how.threads
        bind.cpus.extend(how.cpus)
    for parameter, argument in zip(signature.parameters, arguments):
        if parameter.kind == Parameter.BUFFER:
            bind.arguments.add(tensor=argument.number)
        elif dtypes.is_float(parameter.dtype):
            bind.arguments.add(real=float(argument))
        else:
            value = int(argument)
            bind.arguments.add(integer=value - (1 << 64) if value >= 1 << 63 else value)
    return RequestFrame(bind=bind)


def unbind_frame(number: int) -> RequestFrame:
    """The frame that forgets a binding."""
    return RequestFrame(unbind=RequestFrame.Unbind(call=number))
