"""This machine's CPU: native libraries, called in this process."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from crossfarm import _version
from crossfarm.artifact import DeviceCapabilities
from crossfarm.compat.versions import NATIVE_ABI
from crossfarm.errors import Error, IncompatibleArtifact, InvalidArtifact, LimitExceeded
from crossfarm.target import Target
from device_agent.drivers import nativeloop
from device_agent.drivers.base import CallArgument, DeviceDescription, Placement
from device_agent.drivers.failures import refused
from device_agent.drivers.hostmemory import HostMemory
from device_agent.drivers.nativesteps import LibrarySteps
from device_agent.drivers.nativethreads import Caller, LibraryThreads, usable_cpus

if TYPE_CHECKING:
    from crossfarm.artifact import Artifact, Binding, Signature
    from crossfarm.wire.v1.artifact_pb2 import Variant


#: Status of a function whose parallel loop got no scratch memory.
_NO_SCRATCH = -1


def probe() -> list[DeviceDescription]:
    """One device: the machine's memory, and those of its CPUs that this process may use."""
    target = Target.detect()
    attributes = {
        "kind": "cpu",
        "arch": str(target.attributes.get("arch", "")),
        "os": str(target.attributes.get("os", "")),
        "name": _model_name(),
        "memory": str(psutil.virtual_memory().total),
        "cores": str(psutil.cpu_count(logical=False) or psutil.cpu_count() or 1),
        "threads": str(len(usable_cpus()) or psutil.cpu_count() or 1),
        "driver": "cpu",
        "driver_version": _version.__version__,
        "os_version": platform.release(),
    }
    return [DeviceDescription(attributes, target)]


def open_device(index: int) -> CpuDevice:
    """The device; ``index`` is 0."""
    return CpuDevice()


class CpuDevice:
    def __init__(self) -> None:
        self.capabilities = (DeviceCapabilities.of_host("cpu"),)
        self.cpus = usable_cpus()
        self.scratch = Scratch()
        self.caller = Caller()

    def allocate(self, size: int) -> HostMemory:
        return HostMemory(size)

    def load(self, artifact: Artifact, variant: Variant) -> CpuProgram:
        if variant.requires.native_abi not in (0, NATIVE_ABI):
            raise IncompatibleArtifact(
                f"the library speaks native ABI {variant.requires.native_abi}, this agent {NATIVE_ABI}",
                hint="rebuild the artifact, or upgrade the agent",
            )
        return CpuProgram(load_library(artifact.code(variant), artifact.name), self)

    def place(self, threads: LibraryThreads, placement: Placement) -> None:
        """Makes the next call of a library from this thread run as ``placement`` says."""
        threads.place(placement)
        self.caller.place(placement.cpus, self.cpus)

    def synchronize(self) -> None:
        """Calls return when they are done."""

    def close(self) -> None:
        self.scratch.memory.release()


class Scratch:
    """Workspace that all calls of a device share, since they run one after the other."""

    def __init__(self) -> None:
        self.memory = HostMemory(0)
        self.pointer = ctypes.c_void_p(None)

    def reserve(self, size: int) -> None:
        """Makes it ``size`` bytes at least; calls read ``pointer`` each time, so it may move. Raises LimitExceeded."""
        if size <= self.memory.size:
            return
        try:
            grown = HostMemory(size)
        except MemoryError:
            raise LimitExceeded(
                f"the function needs a workspace of {size:,} bytes, which the device cannot give",
                hint="make its temporaries smaller, or acquire the device with a larger memory limit",
                details={"bytes": str(size)},
            ) from None
        self.memory.release()
        self.memory = grown
        self.pointer.value = grown.address


class CpuProgram:
    """A library in this process."""

    def __init__(self, library: ctypes.CDLL, device: CpuDevice) -> None:
        self._library = library
        self._device = device
        self._threads = LibraryThreads(library)

    def bind(
        self, signature: Signature, arguments: Sequence[CallArgument], binding: Binding, placement: Placement
    ) -> CpuCall:
        symbol = signature.entry.native.symbol
        try:
            function = getattr(self._library, symbol)
        except AttributeError:
            raise InvalidArtifact(f"the library has no symbol {symbol!r} for function {signature.name!r}") from None
        self._device.scratch.reserve(binding.workspace_bytes)
        slots = (ctypes.c_uint64 * max(1, len(arguments) + len(binding.symbols)))()
        for index, argument in enumerate(arguments):
            if isinstance(argument, HostMemory):
                slots[index] = argument.address
            else:
                assert isinstance(argument, (int, float))
                slots[index] = signature.scalar_bits(index, argument)
        for index, value in enumerate(binding.symbols, start=len(arguments)):
            slots[index] = value & 0xFFFF_FFFF_FFFF_FFFF
        steps = LibrarySteps(self._library, len(signature.entry.steps))
        return CpuCall(function, slots, signature, self._device, self._threads, steps, placement)

    def release(self) -> None:
        self._threads.close()
        unload_library(self._library)


class CpuCall:
    """A native function with its slots."""

    def __init__(
        self,
        function: Any,
        slots: Any,
        signature: Signature,
        device: CpuDevice,
        threads: LibraryThreads,
        steps: LibrarySteps,
        placement: Placement,
    ) -> None:
        function.restype = ctypes.c_int32
        self._function = function
        self._pointer = device.scratch.pointer
        self._slots = slots
        self._name = signature.name
        self._failures = tuple(signature.entry.failures)
        self._device = device
        self._caller = device.caller
        self._threads = threads
        self._steps = steps
        self._placement = placement
        self._repeat = nativeloop.repeater(function)

    @property
    def loop(self) -> str:
        return "native" if self._repeat is not None else "interpreted"

    @property
    def threads(self) -> int:
        self._place()
        return self._threads.count

    def __call__(self) -> None:
        if self._threads.placement is not self._placement or self._caller.cpus is not self._placement.cpus:
            self._place()
        if status := self._function(self._pointer, self._slots):
            raise self._failure(status)

    def profile(self) -> tuple[float, ...]:
        if not self._steps.told:
            return ()
        with self._steps.watched():
            self()
        return self._steps.seconds()

    def repeat(self, number: int) -> None:
        self._place()
        if self._repeat is None:
            for _ in range(number):
                self()
        elif status := self._repeat(self._pointer, self._slots, number):
            raise self._failure(status)

    def _place(self) -> None:
        self._device.place(self._threads, self._placement)

    def _failure(self, status: int) -> Error:
        if status == _NO_SCRATCH:
            return LimitExceeded(
                f"{self._name} ran out of memory for the temporaries of its parallel loops",
                hint="make them smaller, use fewer threads, or acquire the device with a larger memory limit",
            )
        return refused(self._name, status, self._failures)


#: Loaded library's handle → the descriptor of the memory file that it was loaded from.
_descriptors: dict[int, int] = {}


def load_library(library: bytes, name: str) -> ctypes.CDLL:
    """Loads a shared library from memory; no file of it stays. Raises IncompatibleArtifact with the loader's words."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(f"crossfarm-{name}"[:64], os.MFD_CLOEXEC)
        try:
            _write(fd, library)
            path = f"/proc/self/fd/{fd}"
            if os.path.exists(path):
                loaded = _dlopen(path, name)
                # Open until it is unloaded: for a path that it has seen, the loader gives the library that it has, so
                # no two libraries may have the same descriptor number.
                _descriptors[loaded._handle], fd = fd, -1
                return loaded
        finally:
            if fd >= 0:
                os.close(fd)
    fd, path_text = tempfile.mkstemp(prefix="crossfarm-", suffix=".dll" if sys.platform == "win32" else ".so")
    try:
        try:
            _write(fd, library)
        finally:
            os.close(fd)
        return _dlopen(path_text, name)
    finally:
        try:
            os.unlink(path_text)
        except PermissionError:
            pass  # Windows keeps a loaded library's file; it goes with the temporary directory


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _dlopen(path: str, name: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(path)
    except OSError as failure:
        raise IncompatibleArtifact(
            f"this device cannot load the library of artifact {name!r}: {str(failure).replace(path, 'it')}",
            hint="build it for this device: farm.build(module, target=device.target)",
        ) from failure


def unload_library(library: ctypes.CDLL) -> None:
    """Unmaps it; no call of it may be made any more."""
    import _ctypes

    if hasattr(_ctypes, "dlclose"):
        _ctypes.dlclose(library._handle)
    else:
        _ctypes.FreeLibrary(library._handle)  # type: ignore[attr-defined]
    if (fd := _descriptors.pop(library._handle, -1)) >= 0:
        os.close(fd)


def _model_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
