"""Loaded artifacts and their functions: calls with numpy arrays or device tensors, pipelined calls, measurements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from clients.sdk.benchmark import BenchmarkResult
from clients.sdk.calls import BoundCall, CallPlan, How, bind_frame, pack, unbind_frame
from clients.sdk.constants import LoadedConstants, SharedConstants
from clients.sdk.future import Future
from clients.sdk.profile import Profile, profile_of
from clients.sdk.session import Session
from clients.sdk.tensor import Tensor
from crossfarm import errors
from crossfarm.artifact import Artifact, Signature
from crossfarm.target import Target
from crossfarm.wire.v1.artifact_pb2 import Variant
from crossfarm.wire.v1.session_pb2 import RequestFrame

#: Combinations of arguments whose binding is remembered, per function.
_REMEMBERED = 1024


class Loaded(Mapping[str, "LoadedFunction"]):
    """An artifact on a device: a mapping of names to functions. Ends with ``unload``, its ``with`` block or the lease.

    Attributes:
        artifact: what was loaded.
        variant: the part of it that the device runs.
        source: where the device had its bytes from: "frame", "tensor", "cache" or a store's address.
    """

    def __init__(
        self,
        session: Session,
        shared: SharedConstants,
        number: int,
        artifact: Artifact,
        variant: Variant,
        *,
        source: str = "",
    ) -> None:
        self.artifact = artifact
        self.variant = variant
        self.source = source
        self._session = session
        self._number = number
        signatures = {entry.name: Signature(entry) for entry in variant.entry_points}
        self._constants = LoadedConstants(session, shared, number, artifact, variant, signatures)
        self._functions = {
            name: LoadedFunction(session, number, signature, self._constants) for name, signature in signatures.items()
        }

    def __getitem__(self, name: str) -> LoadedFunction:
        """The function ``name``. Raises NoSuchFunction listing those there are, and the targets that have it where this
        device's has not."""
        try:
            return self._functions[name]
        except KeyError:
            raise self._no_function(name) from None

    def __repr__(self) -> str:
        return f"<Loaded {self.artifact.name!r}: {', '.join(self._functions)}>"

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)

    def unload(self) -> None:
        """Takes the artifact off the device after everything sent before; again is nothing."""
        if self._number and not self._session.closed:
            number, self._number = self._number, 0
            self._session.send([(RequestFrame(unload=RequestFrame.Unload(module=number)), None)], [])
            self._constants.free()

    def _no_function(self, name: str) -> errors.NoSuchFunction:
        known = ", ".join(self._functions) or "none"
        elsewhere = [v for v in self.artifact.variants if any(entry.name == name for entry in v.entry_points)]
        if not elsewhere:
            return errors.NoSuchFunction(f"artifact {self.artifact.name!r} has no function {name!r}; it has: {known}")
        here = Target.from_proto(self.variant.target).label
        targets = "; ".join(Target.from_proto(v.target).label for v in elsewhere)
        return errors.NoSuchFunction(
            f"artifact {self.artifact.name!r} has no function {name!r} for this device, which runs what is built for "
            f"{here}: that has {known}; {name!r} is there for {targets}",
            hint="load the artifact on a device of such a target, or take the function's target away and build again",
        )

    def __enter__(self) -> Loaded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unload()


class LoadedFunction:
    """A function on a device. Call it, ``submit`` it, ``benchmark`` it, or ``profile`` it.

    Arguments are the function's inputs in parameter order, or one for every parameter. Buffers are numpy arrays or
    device tensors of the parameter's dtype and shape, scalars are numbers. What the function only writes is returned,
    in parameter order: one result, a tuple of several, or None. Results are device tensors where all buffers given are,
    numpy arrays otherwise. ``out=`` gives an array or tensor (a tuple of them for several) to write into instead. An
    array that the function reads and writes is changed in place.

    Constants (a model's weights) come from the artifact, never from callers. The first use of a function that has them
    brings them to the device, which takes its time; they stay there as long as the artifact is loaded.

    Attributes:
        signature: names, dtypes and shapes of the parameters.
    """

    def __init__(self, session: Session, module: int, signature: Signature, constants: LoadedConstants) -> None:
        self.signature = signature
        self._session = session
        self._module = module
        self._constants = constants
        self._bound: dict[Any, BoundCall] = {}

    @property
    def name(self) -> str:
        return self.signature.name

    def __call__(
        self,
        *args: Any,
        out: Any = None,
        timeout: float | None = None,
        threads: int | None = None,
        cpus: Iterable[int] | None = None,
    ) -> Any:
        """Runs the function and waits for its results.

        Args:
            timeout: seconds that this call may run on the device; by default the session's limit for calls.
            threads: how many its parallel loops run on; by default as many as ``cpus``, or else as the CPUs that the
                device's worker may use.
            cpus: numbers of the device's CPUs that it runs on, one thread on each in turn; by default on any.

        Raises:
            ArgumentError: an argument does not fit, found before anything is sent.
            ProgramError: the program reported a failure, such as a failed check.
            Timeout: it ran too long; the lease ends with it.
            RemoteCrash: it crashed its worker; the lease ends with it.
            LimitExceeded: it needs more memory than the lease may use.
            NotFound, InvalidArtifact: the content of a constant is not here, or was changed (found at the first use).
        """
        asked = How.of(timeout, threads, cpus)
        bound = self._known(args, out, asked)
        if bound is None:
            return self._start(args, out, asked, own=False).result()
        future = self._session.run(bound.number)
        if future._error is not None:
            raise future._error
        return bound.result

    def submit(
        self,
        *args: Any,
        out: Any = None,
        timeout: float | None = None,
        threads: int | None = None,
        cpus: Iterable[int] | None = None,
    ) -> Future[Any]:
        """Sends the call and returns at once. Arrays are copied first and may be changed; what fails on the device is
        raised by the future. Raises ArgumentError as a call does."""
        return self._start(args, out, How.of(timeout, threads, cpus), own=True)

    def benchmark(
        self,
        *args: Any,
        out: Any = None,
        warmup: int = 3,
        repeat: int = 20,
        number: int = 1,
        min_repeat_ms: float = 10.0,
        cooldown_ms: float = 0.0,
        flush_bytes: int = 0,
        timeout: float | None = None,
        threads: int | None = None,
        cpus: Iterable[int] | None = None,
    ) -> BenchmarkResult:
        """Measures the function on the device, on these arguments over and over.

        Args:
            warmup: calls before the first sample.
            repeat: samples.
            number: calls in a sample at least.
            min_repeat_ms: milliseconds that a sample lasts at least; ``number`` is raised until it does.
            cooldown_ms: pause before each sample.
            flush_bytes: bytes of other memory written before each sample, so that it begins with cold caches.
            timeout: seconds that one call may run.
            threads, cpus: as for a call.

        Raises:
            ArgumentError, ProgramError, Timeout, RemoteCrash: as a call does.
        """
        asked = How.of(timeout, threads, cpus)
        body = RequestFrame.Benchmark(
            warmup=_count("warmup", warmup, 0),
            repeat=_count("repeat", repeat, 1),
            number=_count("number", number, 0),
            min_repeat_ms=min_repeat_ms,
            cooldown_ms=cooldown_ms,
            flush_bytes=_count("flush_bytes", flush_bytes, 0),
        )
        plan = self._plan(self._placed(args, out), asked, own=False)
        frame = RequestFrame(request=1, benchmark=body)
        measured = plan.send(frame, fetch=False).result()
        return BenchmarkResult(tuple(measured.samples), int(measured.number), dict(measured.environment))

    def profile(
        self,
        *args: Any,
        out: Any = None,
        warmup: int = 3,
        repeat: int = 10,
        timeout: float | None = None,
        threads: int | None = None,
        cpus: Iterable[int] | None = None,
    ) -> Profile:
        """Tells how long each step of the function takes on the device, on these arguments: for a model each of its
        fused operators, with the nodes that it computes.

        Args:
            warmup: calls before.
            repeat: calls that are looked at.
            timeout: seconds that one call may run.
            threads, cpus: as for a call.

        Raises:
            ArgumentError, ProgramError, Timeout, RemoteCrash: as a call does.
            UnsupportedTarget: the device's agent is of a release that knows no profiles.
            InvalidArtifact: the artifact says other steps than there are.
        """
        asked = How.of(timeout, threads, cpus)
        body = RequestFrame.Profile(warmup=_count("warmup", warmup, 0), repeat=_count("repeat", repeat, 1))
        placed = self._placed(args, out)
        symbols = self.signature.bind(placed).symbols
        profiled = self._plan(placed, asked, own=False).send(RequestFrame(request=1, profile=body), fetch=False)
        return profile_of(self.signature, symbols, profiled.result())

    def __repr__(self) -> str:
        return f"<LoadedFunction {self.signature}>"

    def _start(self, args: tuple[Any, ...], out: Any, how: How, *, own: bool) -> Future[Any]:
        """Sends a call; ``own``: the caller may change arrays before they are on their way."""
        bound = self._known(args, out, how)
        if bound is not None:
            future = self._session.call(bound.number)
            future._value = bound.result
            return future
        placed = self._placed(args, out)
        if all(isinstance(a, (Tensor, int, float)) for a in placed):
            bound = self._remember(placed, out, how, (args, out, how, *map(type, args)))
            future = self._session.call(bound.number)
            future._value = bound.result
            return future
        return self._plan(placed, how, own=own).send(RequestFrame(request=1), fetch=True)

    def _placed(self, args: tuple[Any, ...], out: Any) -> list[Any]:
        """One entry a parameter, constants filled in. Raises ArgumentError, and what bringing constants fails with."""
        signature = self.signature
        placed = signature.arrange(args, out)
        if signature.constants:
            signature.bind(placed)  # a wrong argument is told before constants are sent
            for index, tensor in self._constants.of(signature).items():
                placed[index] = tensor
        return placed

    def _known(self, args: tuple[Any, ...], out: Any, how: How) -> BoundCall | None:
        """The binding that the same arguments have on the device, if any."""
        try:
            bound = self._bound.get((args, out, how, *map(type, args)))
        except TypeError:  # arrays cannot be looked up
            return None
        return bound if bound is not None and bound.good() else None

    def _remember(self, placed: Sequence[Any], out: Any, how: How, key: Any) -> BoundCall:
        """Binds arguments that are all on the device, for this call and those like it."""
        self.signature.bind(placed)
        number = self._session.number()
        made = self._session.request(bind_frame(self._session, number, self._module, self.signature, placed, how))
        results = [placed[i] for i in self.signature.outputs] if out is not None else []
        constants = tuple(placed[i] for i in self.signature.constants)
        callers = (a for a, p in zip(placed, self.signature.parameters) if not p.constant)
        bound = BoundCall(number, tuple(a for a in callers if isinstance(a, Tensor)), constants, made, pack(results))
        try:
            stale = self._bound.pop(key, None)
            if stale is None and len(self._bound) >= _REMEMBERED:
                stale = self._bound.pop(next(iter(self._bound)))
            self._bound[key] = bound
        except TypeError:  # out= as a list
            stale = bound
        if stale is not None and stale is not bound:
            self._session.send([(unbind_frame(stale.number), None)], [])
        return bound

    def _plan(self, placed: Sequence[Any], how: How, *, own: bool) -> CallPlan:
        return CallPlan(self._session, self._module, self.signature, placed, how, own=own)


def _count(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 32:
        raise errors.ArgumentError(f"{name}={value!r} must be a whole number of at least {least}")
    return value
