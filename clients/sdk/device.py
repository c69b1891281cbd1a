"""A leased device: load artifacts on it, keep tensors there, read what programs said."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from clients.sdk import uploads
from clients.sdk.constants import SharedConstants
from clients.sdk.loaded import Loaded
from clients.sdk.session import Session
from clients.sdk.tensor import Tensor, allocate_frame
from crossfarm import errors
from crossfarm.artifact import Artifact
from crossfarm.ir import dtype as dtypes
from crossfarm.target import Target
from crossfarm.wire import channels
from crossfarm.wire.tensors import bytes_of
from crossfarm.wire.v1.session_pb2 import RequestFrame

if TYPE_CHECKING:
    from clients.sdk.lease import Lease

#: Artifacts up to this size travel with the request to load them; for larger ones the device looks elsewhere first.
INLINE_BYTES = 256 << 10


class Device:
    """A device for as long as its lease lasts: a context manager, or ``close`` it.

    All methods may be called from any thread. Requests are carried out in the order they are made.

    Args:
        lease: kept alive by its own thread; released by ``close``.
        security: credentials for the session: those of the farm it comes from.
    """

    def __init__(self, lease: Lease, *, security: channels.Security = channels.PLAINTEXT) -> None:
        self.lease = lease
        self._session = Session(lease, security=security, client=_whoami())
        self._constants = SharedConstants(self._session)

    @property
    def id(self) -> str:
        """The device's name in the farm."""
        return self.lease.info.id

    @property
    def target(self) -> Target:
        """The target that fits this device best: ``farm.build(module, target=device.target)``."""
        return Target.from_proto(self.lease.info.target)

    @property
    def attributes(self) -> Mapping[str, str]:
        """What selectors see: kind, arch, os, name, memory, cores, driver, …, all as text."""
        return dict(self.lease.info.attributes)

    def load(self, artifact: Artifact) -> Loaded:
        """Makes an artifact's functions callable. Constants are sent when a function that has them is first used.

        Raises:
            IncompatibleArtifact: the device cannot run it; says what is missing.
            InvalidArtifact: it was damaged on its way.
            ArgumentError: something else than an Artifact.
        """
        if not isinstance(artifact, Artifact):
            raise errors.ArgumentError(
                f"load takes an Artifact, not {type(artifact).__name__}",
                hint="farm.build(module) makes one, crossfarm.Artifact.open(path) reads one",
            )
        number = self._session.number()
        load = RequestFrame.Load(module=number, sha256=bytes.fromhex(artifact.digest), size=artifact.size)
        data = memoryview(artifact.data)
        if artifact.size <= INLINE_BYTES:
            load.carried = True
            reply = self._session.request(RequestFrame(load=load), data).result()
        else:
            try:
                reply = self._session.request(RequestFrame(load=load)).result()
            except errors.NotFound:
                number = load.module = self._session.number()
                with self._upload(data, (artifact.size,), "uint8") as carrier:
                    load.tensor = carrier.number
                    reply = self._session.request(RequestFrame(load=load)).result()
        variant = artifact.variants[reply.variant]
        return Loaded(self._session, self._constants, number, artifact, variant, source=reply.source)

    def tensor(self, array: Any, *, constant: bool = False) -> Tensor:
        """A tensor on the device with the elements of ``array``, which may be changed afterwards.

        Args:
            array: a numpy array, or what ``numpy.asarray`` makes one of.
            constant: look first whether the device has this content, and keep it there for later leases. For large
                constants, such as weights.

        Raises:
            ArgumentError: a dtype that devices do not have.
            LimitExceeded: it does not fit into the lease's memory (a small tensor's failure shows at its first use).
        """
        data = np.asarray(array)
        try:
            dtype = dtypes.from_numpy(data.dtype)
        except ValueError as failure:
            raise errors.ArgumentError(str(failure), hint="convert it with .astype(…)") from failure
        return self._upload(bytes_of(data), data.shape, dtype, constant=constant)

    def empty(self, shape: Sequence[int] | int, dtype: str = "float32") -> Tensor:
        """A tensor of undefined content. Raises ArgumentError; LimitExceeded shows at its first use."""
        extents = (shape,) if isinstance(shape, int) else tuple(int(extent) for extent in shape)
        if not dtypes.is_valid(str(dtype)) or str(dtype) not in dtypes.SCALARS:
            raise errors.ArgumentError(f"dtype {dtype!r} is not one of {', '.join(dtypes.SCALARS)}")
        if any(extent < 0 for extent in extents):
            raise errors.ArgumentError(f"a shape cannot have negative extents: {extents}")
        number = self._session.number()
        self._session.send([(allocate_frame(number, extents, str(dtype)), None)], [])
        return Tensor(self._session, number, extents, str(dtype))

    def synchronize(self) -> None:
        """Returns when everything sent before is done."""
        self._session.request(RequestFrame(ping=RequestFrame.Ping())).result()

    def logs(self) -> str:
        """The last part of what programs and the worker have printed in this session."""
        return str(self._session.request(RequestFrame(logs=RequestFrame.Logs())).result().text)

    def close(self) -> None:
        """Ends the session and releases the lease; everything on the device is gone. Again is nothing."""
        self._session.close()
        self.lease.release()

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Device {self.id} ({self.attributes.get('name', '')}), lease {self.lease.id}>"

    def _upload(self, view: memoryview, shape: tuple[int, ...], dtype: str, *, constant: bool = False) -> Tensor:
        tensor = Tensor(self._session, self._session.number(), shape, dtype)
        try:
            if constant:
                uploads.upload_constant(self._session, tensor.number, shape, dtype, view)
            else:
                uploads.upload(self._session, tensor.number, shape, dtype, view)
        except BaseException:
            tensor.free()
            raise
        return tensor


def _whoami() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
