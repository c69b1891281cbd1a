"""Which variant of an artifact a device runs, or exactly why it can run none."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from crossfarm.artifact.artifact import Artifact
from crossfarm.compat.versions import NATIVE_ABI
from crossfarm.errors import IncompatibleArtifact
from crossfarm.target import Target, cpu
from crossfarm.wire.v1.artifact_pb2 import Variant

#: Runtimes that run any variant, whatever it was built for: ``reference`` interprets the IRModule that the artifact
#: carries, ``null`` runs nothing.
REFERENCE, NULL = "reference", "null"


def can_load_library(soname: str) -> bool:
    """True when this process can load the shared library of that name."""
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class DeviceCapabilities:
    """What a device brings to run an artifact.

    Attributes:
        runtime: the driver's runtime: ``cpu``, ``reference``, ``null``, …
        arch, os: of the machine.
        cpu_features: names of ``crossfarm.target.cpu.FEATURES``.
        native_abi: the calling convention that the driver speaks.
        features: names of ``crossfarm.target.features``, of a device that runs kernels.
        threads_per_group: of such a device; the most that a group of threads may have. 0 for unknown.
        shared_bytes: of such a device; the most that a group may share. 0 for unknown.
        version: of its API or instruction set, as ``"1.2"``; "" for unknown.
        has_library: asked for each shared library that a variant needs.
    """

    runtime: str
    arch: str
    os: str
    cpu_features: frozenset[str] = frozenset()
    native_abi: int = NATIVE_ABI
    features: frozenset[str] = frozenset()
    threads_per_group: int = 0
    shared_bytes: int = 0
    version: str = ""
    has_library: Callable[[str], bool] = field(default=can_load_library, compare=False)

    @classmethod
    def of_host(cls, runtime: str = "cpu") -> DeviceCapabilities:
        """This machine's."""
        return cls(runtime, cpu.host_arch(), cpu.host_os(), cpu.host_cpu_features())

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, str], target: Target, runtime: str = "cpu") -> DeviceCapabilities:
        """A device's, by its registration: what its own target may use, it has. Libraries are taken to be there."""
        at = {**target.attributes, **attributes}
        features = target.enabled_features() if target.kind == "llvm" else frozenset()
        return cls(runtime, str(at.get("arch", "")), str(at.get("os", "")), features, has_library=lambda _: True)


def select_variant(artifact: Artifact, device: DeviceCapabilities) -> Variant:
    """The variant of ``artifact`` that ``device`` should run.

    Of those it can run the first in the artifact's order is taken, or one for the same runtime that uses more of the
    CPU's features. The ``reference`` runtime runs any artifact that carries its IRModule, ``null`` any at all: they
    take the first variant, for its signatures.

    Raises:
        IncompatibleArtifact: it can run none; the message says what each one lacks, and the hint what to do.
    """
    if not artifact.variants:
        raise IncompatibleArtifact(f"artifact {artifact.name!r} has no variant to run", hint="build it for a target")
    if device.runtime == NULL:
        return artifact.variants[0]
    if device.runtime == REFERENCE:
        if not artifact.manifest.ir_section:
            raise IncompatibleArtifact(
                f"artifact {artifact.name!r} does not carry its IRModule, which the reference device interprets",
                hint="build it again from its source",
            )
        return artifact.variants[0]
    lacks = [(variant, missing(variant, device)) for variant in artifact.variants]
    fitting = [variant for variant, reasons in lacks if not reasons]
    if fitting:
        same = [v for v in fitting if v.runtime == fitting[0].runtime]
        return max(same, key=lambda v: len(v.requires.cpu_features))  # the first of equals
    raise IncompatibleArtifact(
        f"this device ({device.arch}, {device.os}) cannot run artifact {artifact.name!r}: "
        + "; ".join(f"its variant for {_label(variant)} {', '.join(reasons)}" for variant, reasons in lacks),
        hint="build it for this device: farm.build(module, target=device.target), or "
        "`crossfarm build --target native` on the device's machine",
        details={"arch": device.arch, "os": device.os},
    )


def missing(variant: Variant, device: DeviceCapabilities) -> list[str]:
    """What keeps ``device`` from running ``variant``, in words; nothing where it can."""
    needs = variant.requires
    reasons = []
    if variant.runtime != device.runtime:
        reasons.append(f"is for the runtime {variant.runtime!r}, not {device.runtime!r}")
    if needs.arch and needs.arch != device.arch:
        reasons.append(f"is {needs.arch} code, not {device.arch}")
    if needs.os and needs.os != device.os:
        reasons.append(f"is for {needs.os}, not {device.os}")
    if reasons:
        return reasons  # features and libraries of another machine would only add noise
    if needs.native_abi and needs.native_abi != device.native_abi:
        reasons.append(f"speaks native ABI {needs.native_abi}, the device {device.native_abi}")
    if absent := sorted(set(needs.cpu_features) - device.cpu_features):
        reasons.append(f"needs CPU features that it lacks: {', '.join(absent)}")
    if absent := sorted(set(needs.device_features) - device.features):
        reasons.append(f"needs {', '.join(absent)}, which the device does not have")
    if device.threads_per_group and needs.threads_per_group > device.threads_per_group:
        reasons.append(f"has groups of {needs.threads_per_group} threads, the device allows {device.threads_per_group}")
    if device.shared_bytes and needs.shared_bytes > device.shared_bytes:
        reasons.append(f"needs {needs.shared_bytes:,} bytes of shared memory, the device has {device.shared_bytes:,}")
    if device.version and needs.device_version and _version(needs.device_version) > _version(device.version):
        reasons.append(f"needs {device.runtime} {needs.device_version}, the device has {device.version}")
    if unknown := [soname for soname in needs.libraries if not device.has_library(soname)]:
        reasons.append(f"needs shared libraries that it lacks: {', '.join(unknown)}")
    return reasons


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isascii() and part.isdigit())


def _label(variant: Variant) -> str:
    return Target.from_proto(variant.target).label
