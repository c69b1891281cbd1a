"""The bytes of an artifact (``.cfa``): the frozen envelope around the manifest, then the sections one after another.

::

    envelope (crossfarm/compat/envelope.py)   kind "artifact", payload: protobuf ``Manifest``, deterministic
    section 1                                 exactly ``sections[0].size`` bytes with ``sections[0].sha256``
    section 2 …                               in the manifest's order, nothing between and nothing after

Reading trusts nothing: each length is checked against what is there before it is used, each section against its
digest, each number in the manifest against what it refers to. Nothing is unpickled or evaluated. Same input, same
bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from crossfarm.artifact.signature import Signature
from crossfarm.compat import envelope
from crossfarm.compat.versions import ARTIFACT_READABLE, ARTIFACT_VERSION
from crossfarm.errors import Error, InvalidArtifact, InvalidTarget
from crossfarm.target import Target
from crossfarm.wire.v1.artifact_pb2 import Manifest, Section, Variant

KIND = "artifact"
#: Bounds on what is read; far above what is written.
MAX_BYTES = 4 << 30
MAX_SECTIONS = 4096
MAX_VARIANTS = 64
MAX_FUNCTIONS = 65536
MAX_NAME = 1024

LIBRARY, KERNELS, IR, SOURCE, CONSTANTS = "library", "kernels", "ir", "source", "constants"
SECTION_KINDS = (LIBRARY, KERNELS, IR, SOURCE, CONSTANTS)


@dataclass(frozen=True)
class Contents:
    """An artifact taken apart: its manifest, where each section lies (id → view), and who wrote it."""

    manifest: Manifest
    sections: Mapping[int, memoryview]
    producer: str
    version: int


def pack(manifest: Manifest, sections: Mapping[int, bytes | memoryview]) -> bytes:
    """The file for a manifest whose ``sections`` entries have id, kind, name and critical; size and digest are filled.

    Raises:
        InvalidArtifact: the manifest and the sections do not fit together, as ``unpack`` would say.
    """
    filled = Manifest()
    filled.CopyFrom(manifest)
    for entry in filled.sections:
        body = sections[entry.id]
        entry.size = len(body)
        entry.sha256 = hashlib.sha256(body).digest()
    _check_manifest(filled, producer="this program")
    head = envelope.write(KIND, filled.SerializeToString(deterministic=True), ARTIFACT_VERSION, min_reader=1)
    return b"".join([head, *(sections[entry.id] for entry in filled.sections)])


def unpack(data: bytes | memoryview, *, what: str = "") -> Contents:
    """Takes a file apart and checks everything in it.

    Args:
        what: how messages call the data, as a path.

    Raises:
        InvalidArtifact: not an artifact, truncated, tampered with, from the future, or inconsistent; the message names
            the section or field.
    """
    view = memoryview(data).cast("B")
    name = what or "this artifact"
    if view.nbytes > MAX_BYTES:
        raise InvalidArtifact(f"{name} is larger than {MAX_BYTES} bytes")
    opened = envelope.read(view, KIND, ARTIFACT_READABLE, understood=(), trailing=True, what=name)
    try:
        manifest = Manifest.FromString(bytes(opened.payload))
    except DecodeError as failure:
        raise InvalidArtifact(f"{name} is damaged: its manifest does not parse") from failure
    _check_manifest(manifest, producer=opened.producer, name=name)
    sections: dict[int, memoryview] = {}
    offset = opened.size
    for entry in manifest.sections:
        body = view[offset : offset + entry.size]
        if body.nbytes < entry.size:
            raise InvalidArtifact(
                f"{name} is truncated: {_describe(entry)} ends at byte {offset + entry.size}, "
                f"the file at {view.nbytes}",
                hint="get a complete copy of the file (partial write?)",
            )
        if hashlib.sha256(body).digest() != entry.sha256:
            raise InvalidArtifact(
                f"{name} was changed after it was written: {_describe(entry)} does not match its SHA-256",
                hint="get a fresh copy of the file, or build it again",
            )
        sections[entry.id] = body
        offset += entry.size
    if offset != view.nbytes:
        raise InvalidArtifact(f"{name} is damaged: {view.nbytes - offset} bytes follow its last section")
    return Contents(manifest, sections, opened.producer, opened.version)


def manifest_of(
    name: str, variants: Sequence[Variant], toolchain: Mapping[str, str], build_options: Mapping[str, str]
) -> Manifest:
    """A manifest without sections, see ``add_section``."""
    return Manifest(name=name, variants=variants, toolchain=dict(toolchain), build_options=dict(build_options))


def add_section(manifest: Manifest, kind: str, name: str, *, critical: bool) -> int:
    """Appends a section entry and returns its id."""
    number = 1 + max((entry.id for entry in manifest.sections), default=0)
    manifest.sections.append(Section(id=number, kind=kind, name=name, critical=critical))
    return number


def _check_manifest(manifest: Manifest, *, producer: str, name: str = "this artifact") -> None:
    if len(manifest.sections) > MAX_SECTIONS or len(manifest.variants) > MAX_VARIANTS:
        raise InvalidArtifact(
            f"{name} has {len(manifest.sections)} sections and {len(manifest.variants)} variants; the limits are "
            f"{MAX_SECTIONS} and {MAX_VARIANTS}"
        )
    kinds: dict[int, str] = {}
    for entry in manifest.sections:
        if entry.id == 0 or entry.id in kinds:
            raise InvalidArtifact(f"{name} is damaged: section id {entry.id} is zero or used twice")
        if entry.kind not in SECTION_KINDS and entry.critical:
            raise InvalidArtifact(
                f"{name}, written by {producer}, has a section {entry.kind!r} ({entry.name!r}) that must be "
                "understood, and this release does not know it",
                hint="upgrade crossfarm, or have the artifact built without it",
            )
        if len(entry.name) > MAX_NAME or len(entry.sha256) != 32 or entry.size > MAX_BYTES:
            raise InvalidArtifact(f"{name} is damaged: the entry of {_describe(entry)} is malformed")
        kinds[entry.id] = entry.kind
    if manifest.ir_section and kinds.get(manifest.ir_section) != IR:
        raise InvalidArtifact(f"{name} is damaged: its ir_section {manifest.ir_section} is no section of kind 'ir'")
    for index, variant in enumerate(manifest.variants):
        _check_variant(variant, kinds, f"{name}: variant {index}")


def _check_variant(variant: Variant, kinds: Mapping[int, str], where: str) -> None:
    code = KERNELS if variant.kernels else LIBRARY
    if variant.library_section and kinds.get(variant.library_section) != code:
        raise InvalidArtifact(f"{where} names section {variant.library_section} as its {code}, which is none")
    if not variant.runtime:
        raise InvalidArtifact(f"{where} does not say which runtime runs it")
    if len(variant.entry_points) > MAX_FUNCTIONS:
        raise InvalidArtifact(f"{where} has more than {MAX_FUNCTIONS} functions")
    try:
        Target.from_proto(variant.target)
    except InvalidTarget as failure:
        raise InvalidArtifact(f"{where} has an invalid target: {failure.message}", hint=failure.hint) from failure
    seen: set[str] = set()
    for entry in variant.entry_points:
        if not entry.name or len(entry.name) > MAX_NAME or entry.name in seen:
            raise InvalidArtifact(f"{where}: function name {entry.name[:80]!r} is empty, too long, or there twice")
        seen.add(entry.name)
        try:
            Signature(entry)
        except InvalidArtifact:
            raise
        except Error as failure:
            raise InvalidArtifact(f"{where}: {failure.message}") from failure


def _describe(entry: Section) -> str:
    return f"section {entry.id} ({entry.kind!r}, {entry.name[:80]!r})"
