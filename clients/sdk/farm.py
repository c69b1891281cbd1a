"""``connect`` and ``Farm``: the way in. A farm builds modules, leases devices and knows what is there."""

from __future__ import annotations

import atexit
import os
import re
import socket
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from os import PathLike, fspath
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, cast

from clients.sdk import config
from clients.sdk.compiler import BuildProgress, Compiler, TargetInfo, TargetLike
from clients.sdk.lease import Lease, LeaseRequest, QueuePosition
from clients.sdk.outage import Outage
from clients.sdk.programs import user_name
from crossfarm.compat.versions import API_READABLE
from crossfarm.errors import ArgumentError, Unavailable, UsageError
from crossfarm.target import Target
from crossfarm.wire import serving
from crossfarm.wire.channels import PLAINTEXT, Security, open_channel, split_address
from crossfarm.wire.v1 import tracker_pb2
from crossfarm.wire.v1.capabilities_pb2 import Capabilities, GetCapabilitiesRequest
from crossfarm.wire.v1.tracker_pb2_grpc import TrackerStub

if TYPE_CHECKING:
    from onnx import ModelProto

    from clients.sdk.device import Device
    from clients.sdk.embedded import EmbeddedFarm
    from crossfarm.artifact import Artifact
    from crossfarm.ir.module import IRModule

_OPEN_FARMS: weakref.WeakSet[Farm] = weakref.WeakSet()

_SIZE = re.compile(r"(\d{1,18})\s*([KMGT]i?)?B?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class DeviceInfo:
    """A device of the farm as the tracker last knew it.

    Attributes:
        id: unique in the farm and stable over restarts.
        state: "free", "leased", "checking", "offline" or "unhealthy"; "unknown" for one this release has no word for.
        attributes: kind, arch, os, memory (bytes), cores, … as text.
        target: what to build for, so that the result fits this device best; None if it did not say.
        holder, lease_id: who has it, "" if nobody.
        reason: why it is offline or unhealthy.
        since: since when it is in this state.
    """

    id: str
    state: str
    attributes: Mapping[str, str]
    target: Target | None
    holder: str
    lease_id: str
    reason: str
    since: datetime

    @property
    def kind(self) -> str:
        return self.attributes.get("kind", "")

    @staticmethod
    def from_proto(info: tracker_pb2.DeviceInfo) -> DeviceInfo:
        known = tracker_pb2.DeviceState.values()
        named = info.state in known and info.state != tracker_pb2.DEVICE_STATE_UNSPECIFIED
        return DeviceInfo(
            id=info.id,
            state=tracker_pb2.DeviceState.Name(info.state).lower() if named else "unknown",
            attributes=MappingProxyType(dict(info.attributes)),
            target=Target.from_proto(info.target) if info.HasField("target") else None,
            holder=info.holder,
            lease_id=info.lease_id,
            reason=info.reason,
            since=datetime.fromtimestamp(info.since_unix_ms / 1000, timezone.utc),
        )


def connect(address: str | None = None, *, security: Security | None = None, embedded_devices: str = "") -> Farm:
    """Opens a farm: the one at ``address``, the configured one, or a private one on this machine.

    Which one, in this order (see ``clients.sdk.config``): ``address``; ``CROSSFARM_TRACKER``; the farm that
    ``crossfarm up`` keeps running; the configuration file; else a private farm is started, and taken down by
    ``Farm.close``.

    Args:
        address: host:port of a tracker, or "embedded" for a private farm whatever is configured.
        security: credentials; by default those that are configured.
        embedded_devices: what a private farm offers: drivers separated by commas, as cpu, opencl, reference; by
            default ``CROSSFARM_DEVICES``, else every device of this machine.
    Raises:
        UsageError: the address or the configuration cannot be used.
        PermissionDenied: the address is beyond loopback and there are no credentials.
        InfrastructureError: the private farm did not start.

    A tracker is first called when it is needed: a wrong address shows there, as Unavailable.
    """
    settings = config.resolve(address, security)
    if settings.tracker != config.EMBEDDED:
        return Farm(settings.tracker, compiler=settings.compiler, security=settings.security)
    from clients.sdk.embedded import EmbeddedFarm

    embedded = EmbeddedFarm(devices=embedded_devices)
    return Farm(embedded.tracker, compiler=embedded.compiler, embedded=embedded)


class Farm:
    """A connection to a farm. Make one with ``connect``; use it as a context manager, or ``close`` it.

    Attributes:
        address: host:port of the tracker.
        embedded: the private farm behind this connection, None if it belongs to somebody else.

    All methods may be called from several threads at once. Besides what each lists, they raise Unavailable when the
    service does not answer (after trying again for a while) and PermissionDenied.
    """

    def __init__(
        self,
        address: str,
        *,
        compiler: str = "",
        security: Security = PLAINTEXT,
        embedded: EmbeddedFarm | None = None,
    ) -> None:
        self.address = address
        self.embedded = embedded
        self._security = security
        self._channel = open_channel(address, security)
        self._tracker = TrackerStub(self._channel)
        self._outage = Outage()
        self._process = os.getpid()
        if embedded is not None:
            self._outage.answered()
        self._compiler_address = compiler
        self._compiler: Compiler | None = None
        self._checked = self._closed = False
        self._lock = threading.Lock()
        self._devices: weakref.WeakSet[Device] = weakref.WeakSet()
        _OPEN_FARMS.add(self)

    @property
    def compiler(self) -> Compiler:
        """The farm's compiler service, for what ``build`` leaves out. Raises Unavailable if the farm has none."""
        self._check_open()
        with self._lock:
            if self._compiler is None:
                address = self._compiler_address or self._ask_for_compiler()
                self._compiler = Compiler(address, security=self._security)
            return self._compiler

    @property
    def security(self) -> Security:
        """The credentials used with every service of this farm."""
        return self._security

    def build(
        self,
        module: IRModule | ModelProto | str | PathLike[str],
        target: TargetLike | Sequence[TargetLike] = "llvm",
        *,
        opt_level: int | None = None,
        keep_sources: bool = False,
        schedule: str = "default",
        timeout: float | None = None,
        on_progress: Callable[[BuildProgress], None] | None = None,
    ) -> Artifact:
        """Builds a module into an artifact, which has the module's constants (weights) with it. They are not sent.

        Args:
            module: an IRModule, an ONNX model, or the path of one (.py, .cfir, .onnx).
            target: a tag or kind ("raspberry-pi/4b", "llvm"), a dict, a Target; a list makes one artifact with a
                variant for each.
            opt_level: 0 to 3, by default 3.
            keep_sources: also keep the generated assembly and the module after each pass.
            schedule: "default" lets rules schedule what nobody scheduled, "none" leaves all loops as they are written,
                the name of a rule applies that one.
            timeout: seconds the build itself may take, by default the server's limit.
            on_progress: told, in this thread, of the place in the queue and of each step.
        Raises:
            InvalidModule, InvalidTarget, UnsupportedTarget, BuildFailed.
        """
        return self.compiler.build(
            as_module(module),
            as_targets(target),
            opt_level=opt_level,
            keep_sources=keep_sources,
            schedule=schedule,
            timeout=timeout,
            on_progress=on_progress,
        ).artifact

    def acquire(
        self,
        selector: str = "",
        *,
        timeout: float | None = None,
        priority: int = 50,
        session_timeout: float | None = None,
        call_timeout: float | None = None,
        memory: int | str | None = None,
        on_queued: Callable[[QueuePosition], None] | None = None,
    ) -> Device:
        """Leases a device that meets ``selector``, waiting until one is free.

        Args:
            selector: such as ``kind=cpu,arch=aarch64,memory>=2GiB``, see ``crossfarm.selectors``.
            timeout: seconds to wait for a device, by default for ever.
            priority: 0 to 100; higher is served first, equals in order of asking.
            session_timeout, call_timeout: seconds that the whole session, and one call, may take.
            memory: what the program may use on the device, in bytes or as "512MiB".
            on_queued: told, in this thread, of each change of the place in the queue.
        Raises:
            ArgumentError: a number out of its range. InvalidSelector: it does not parse.
            NoSuchDevice: no device of this farm could ever meet it.
            Timeout: none came free in time.
        """
        if not 0 <= priority <= 100:
            raise ArgumentError(f"priority {priority} is not within 0 to 100")
        for what, seconds in (
            ("timeout", timeout),
            ("session_timeout", session_timeout),
            ("call_timeout", call_timeout),
        ):
            if seconds is not None and not seconds >= 0:
                raise ArgumentError(f"{what}={seconds} is no number of seconds", hint="leave it out for no limit")
        self._check_open()
        from clients.sdk.device import Device

        request = LeaseRequest(
            selector=selector,
            priority=priority,
            timeout=timeout,
            session_seconds=session_timeout or 0.0,
            call_seconds=call_timeout or 0.0,
            memory_bytes=parse_size(memory) if memory is not None else 0,
            client=f"{user_name()}@{socket.gethostname()}",
        )
        lease = Lease.acquire(
            self._tracker, request, peer=self.address, on_queued=on_queued, outage_seconds=self._outage.patience
        )
        self._outage.answered()
        try:
            device = Device(lease, security=self.security)
        except BaseException:
            lease.release()
            raise
        self._devices.add(device)
        return device

    def devices(self, selector: str = "") -> list[DeviceInfo]:
        """The devices that meet ``selector``, by id, whatever their state. Raises InvalidSelector."""
        self._check_open()
        self._check_versions()
        answer = self._outage.ride_out(
            lambda: self._tracker.ListDevices(tracker_pb2.ListDevicesRequest(selector=selector)),
            "listing devices",
            self.address,
        )
        return sorted(map(DeviceInfo.from_proto, answer.devices), key=lambda device: device.id)

    def targets(self) -> list[TargetInfo]:
        """The targets that the compiler service knows by name, and which of them it can build for."""
        return self.compiler.targets()

    def capabilities(self) -> dict[str, Capabilities]:
        """Versions, features and limits of the "tracker" and the "compiler"."""
        self._check_open()
        return {"tracker": self._tracker_capabilities(), "compiler": self.compiler.capabilities()}

    def put(self, artifact: Artifact) -> str:
        """Puts ``artifact`` into the farm's store, where agents fetch it by digest; returns the digest. Constants stay
        here: each goes straight to the devices that need it."""
        return self.compiler.store(artifact)

    def close(self) -> None:
        """Gives every device back, ends the connections, takes a private farm down; again is nothing."""
        self._closed = True
        for device in list(self._devices):
            device.close()
        with self._lock:
            compiler, self._compiler = self._compiler, None
        if compiler is not None:
            compiler.close()
        self._channel.close()
        if self.embedded is not None:
            self.embedded.stop()
        _OPEN_FARMS.discard(self)

    def __enter__(self) -> Farm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Farm at {self.address}{' (embedded)' if self.embedded is not None else ''}>"

    def _ask_for_compiler(self) -> str:
        answer = self._outage.ride_out(
            lambda: self._tracker.GetFarm(tracker_pb2.GetFarmRequest()), "asking for the compiler service", self.address
        )
        if not answer.compilers:
            raise Unavailable(
                f"the farm at {self.address} has no compiler service",
                hint="start one and name it to the tracker: crossfarm tracker serve --compiler HOST:PORT",
            )
        host, port = split_address(answer.compilers[0])
        if host in ("", "0.0.0.0", "::"):  # it listens everywhere: also where the tracker does
            return f"{self.address.rpartition(':')[0]}:{port}"
        return str(answer.compilers[0])

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"the connection to the farm at {self.address} is closed", hint="connect again")

    def _check_versions(self) -> None:
        # a lease carries its api_version with it: only what does not is preceded by this one question
        if not self._checked:
            self._tracker_capabilities()
            self._checked = True

    def _tracker_capabilities(self) -> Capabilities:
        low, high = API_READABLE
        answer = self._outage.ride_out(
            lambda: self._tracker.GetCapabilities(GetCapabilitiesRequest(client_api_low=low, client_api_high=high)),
            "asking for capabilities",
            self.address,
        )
        serving.check_api(f"the tracker at {self.address}", answer.api_low, answer.api_high, doing="connecting")
        return answer


def as_module(module: IRModule | ModelProto | str | PathLike[str]) -> IRModule:
    """``module``, loaded if it is a path, read if it is an ONNX model."""
    if type(module).__name__ == "ModelProto":  # not imported to be compared with: onnx need not be there
        from crossfarm.frontends.onnx import load_onnx

        return load_onnx(cast("ModelProto", module))
    if isinstance(module, str | PathLike):
        from crossfarm.frontends import load

        return load(fspath(module))
    return cast("IRModule", module)


def as_targets(target: TargetLike | Sequence[TargetLike]) -> list[Target]:
    """One target or several, however they were given. Raises InvalidTarget."""
    if isinstance(target, Sequence) and not isinstance(target, str):
        if not target:
            raise ArgumentError("an empty list of targets", hint='name at least one, such as "llvm"')
        return [single for each in target for single in as_targets(each)]
    made = target if isinstance(target, Target) else Target(target)
    return list(made.targets) or [made]


def parse_size(size: int | str) -> int:
    """Bytes from a number or from "512MiB", "2GB", "64K", with the units of selectors. Raises ArgumentError."""
    if isinstance(size, int):
        return size
    match = _SIZE.fullmatch(size.strip())
    if match is None:
        raise ArgumentError(f"{size!r} is not a size", hint="write bytes as a number, or as 512MiB or 2GB")
    number, unit = int(match[1]), (match[2] or "").upper()
    exponent = "KMGT".find(unit[:1]) + 1 if unit else 0
    return number * (1024 if unit[1:2] == "I" else 1000) ** exponent


@atexit.register
def _close_farms() -> None:
    for farm in list(_OPEN_FARMS):
        if farm._process == os.getpid():  # not in a fork of the process that opened it
            farm.close()
