"""The bytes of an artifact (``.cfa``): the frozen envelope around the manifest, then the sections one after another.

::

    envelope (crossfarm/compat/envelope.py)   kind "artifact", payload: protobuf ``Manifest``, deterministic
    section 1                                 exactly ``sections[0].size`` bytes with ``sections[0].sha256``
    section 2 …                               in the manifest's order, nothing between
    constants                                 the sections of kind "constants", in the manifest's order; or none at all

What comes before the constants is the *core*: it has the artifact's digest, and is what is built, stored and loaded on
devices. The manifest lists the constants in any case, from their digests in the functions' parameters, so that the core
is the same with their content behind it and without. An artifact that has constants uses the feature "constants".

Reading trusts nothing: each length is checked against what is there before it is used, each section against its
digest, each number in the manifest against what it refers to. Only constants are left for their first use to check
(``crossfarm.artifact.constants``). Nothing is unpickled or evaluated. Same input, same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from crossfarm.artifact.constants import check_constants, stored_constants
from crossfarm.artifact.signature import Signature
from crossfarm.compat import envelope
from crossfarm.compat.versions import ARTIFACT_READABLE, ARTIFACT_VERSION
from crossfarm.errors import Error, InvalidArtifact, InvalidTarget
from crossfarm.target import Target
from crossfarm.wire.v1.artifact_pb2 import Manifest, Section, Variant

KIND = "artifact"
#: Bounds on what is read; far above what is written. Of the core, and of all constants together.
MAX_BYTES = 4 << 30
MAX_CONSTANT_BYTES = 1 << 40
MAX_SECTIONS = 4096
MAX_CONSTANTS = 65536
MAX_VARIANTS = 64
MAX_FUNCTIONS = 65536
MAX_NAME = 1024

LIBRARY, KERNELS, IR, SOURCE, CONSTANTS = "library", "kernels", "ir", "source", "constants"
SECTION_KINDS = (LIBRARY, KERNELS, IR, SOURCE, CONSTANTS)

#: The envelope's feature of artifacts whose functions have constants: who ignores them would ask callers for them.
FEATURES = (CONSTANTS,)


@dataclass(frozen=True)
class Contents:
    """An artifact taken apart.

    Attributes:
        core: its bytes without constants.
        manifest: what is in it.
        sections: id → view, of those in the core.
        constants: hex digest → view, unchecked; all that the manifest lists, or none.
        producer, version: who wrote it, in which format version.
    """

    core: bytes
    manifest: Manifest
    sections: Mapping[int, memoryview]
    constants: Mapping[str, memoryview]
    producer: str
    version: int


def pack(manifest: Manifest, sections: Mapping[int, bytes | memoryview]) -> bytes:
    """The core for a manifest whose ``sections`` entries have id, kind, name and critical; size and digest are filled,
    and the entries of constants are made from the functions' parameters.

    Raises:
        InvalidArtifact: the manifest and the sections do not fit together, as ``unpack`` would say.
    """
    filled = Manifest()
    filled.CopyFrom(manifest)
    del filled.sections[:]
    filled.sections.extend(entry for entry in manifest.sections if entry.kind != CONSTANTS)
    bodies = [sections[entry.id] for entry in filled.sections]
    for entry, body in zip(filled.sections, bodies):
        entry.size = len(body)
        entry.sha256 = hashlib.sha256(body).digest()
    number = max((entry.id for entry in filled.sections), default=0)
    for digest, size in stored_constants(filled.variants).items():
        number += 1
        filled.sections.add(id=number, kind=CONSTANTS, name=digest, size=size, sha256=bytes.fromhex(digest))
    _check_manifest(filled, producer="this program")
    features = FEATURES if _has_constants(filled) else ()
    head = envelope.write(KIND, filled.SerializeToString(deterministic=True), ARTIFACT_VERSION, 1, features)
    return b"".join([head, *bodies])


def unpack(data: bytes | memoryview, *, what: str = "") -> Contents:
    """Takes a file apart and checks everything in it but the content of constants.

    Args:
        data: stays in use by what is returned where constants are in it; the core is copied from anything but bytes.
        what: how messages call the data, as a path.

    Raises:
        InvalidArtifact: not an artifact, truncated, tampered with, from the future, or inconsistent; the message names
            the section or field.
    """
    view = memoryview(data).cast("B")
    name = what or "this artifact"
    opened = envelope.read(view, KIND, ARTIFACT_READABLE, understood=FEATURES, trailing=True, what=name)
    try:
        manifest = Manifest.FromString(bytes(opened.payload))
    except DecodeError as failure:
        raise InvalidArtifact(f"{name} is damaged: its manifest does not parse") from failure
    _check_manifest(manifest, producer=opened.producer, name=name)
    spans, end = _spans([e for e in manifest.sections if e.kind != CONSTANTS], opened.size, view.nbytes, name)
    if end > MAX_BYTES:
        raise InvalidArtifact(f"{name} is larger than {MAX_BYTES} bytes, constants not counted")
    core = data if isinstance(data, bytes) and len(data) == end else bytes(view[:end])
    sections: dict[int, memoryview] = {}
    for entry, start in spans:
        body = memoryview(core)[start : start + entry.size]
        if hashlib.sha256(body).digest() != entry.sha256:
            raise InvalidArtifact(
                f"{name} was changed after it was written: {_describe(entry)} does not match its SHA-256",
                hint="get a fresh copy of the file, or build it again",
            )
        sections[entry.id] = body
    constants: dict[str, memoryview] = {}
    if view.nbytes > end:
        spans, end = _spans([e for e in manifest.sections if e.kind == CONSTANTS], end, view.nbytes, name)
        constants = {entry.name: view[start : start + entry.size] for entry, start in spans}
    if end != view.nbytes:
        raise InvalidArtifact(f"{name} is damaged: {view.nbytes - end} bytes follow its last section")
    return Contents(core, manifest, sections, constants, opened.producer, opened.version)


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


def _spans(entries: Sequence[Section], start: int, available: int, name: str) -> tuple[list[tuple[Section, int]], int]:
    """Where each section begins, one behind the other from ``start`` on, and where the last one ends."""
    spans = []
    for entry in entries:
        if start + entry.size > available:
            raise InvalidArtifact(
                f"{name} is truncated: {_describe(entry)} ends at byte {start + entry.size}, the file at {available}",
                hint="get a complete copy of the file (partial write?)",
            )
        spans.append((entry, start))
        start += entry.size
    return spans, start


def _has_constants(manifest: Manifest) -> bool:
    return any(p.constant for v in manifest.variants for entry in v.entry_points for p in entry.parameters)


def _check_manifest(manifest: Manifest, *, producer: str, name: str = "this artifact") -> None:
    constants = [entry for entry in manifest.sections if entry.kind == CONSTANTS]
    others = len(manifest.sections) - len(constants)
    if others > MAX_SECTIONS or len(constants) > MAX_CONSTANTS or len(manifest.variants) > MAX_VARIANTS:
        raise InvalidArtifact(
            f"{name} has {others} sections, {len(constants)} constants and {len(manifest.variants)} variants; the "
            f"limits are {MAX_SECTIONS}, {MAX_CONSTANTS} and {MAX_VARIANTS}"
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
        most = MAX_CONSTANT_BYTES if entry.kind == CONSTANTS else MAX_BYTES
        if len(entry.name) > MAX_NAME or len(entry.sha256) != 32 or entry.size > most:
            raise InvalidArtifact(f"{name} is damaged: the entry of {_describe(entry)} is malformed")
        kinds[entry.id] = entry.kind
    if manifest.ir_section and kinds.get(manifest.ir_section) != IR:
        raise InvalidArtifact(f"{name} is damaged: its ir_section {manifest.ir_section} is no section of kind 'ir'")
    for index, variant in enumerate(manifest.variants):
        _check_variant(variant, kinds, f"{name}: variant {index}")
    _check_listed(manifest, constants, name)


def _check_listed(manifest: Manifest, constants: Sequence[Section], name: str) -> None:
    """Every content that functions use is a section, as it says of itself."""
    listed = {entry.name: entry.size for entry in constants}
    if len(listed) < len(constants) or any(entry.name != entry.sha256.hex() for entry in constants):
        raise InvalidArtifact(f"{name} is damaged: its constants are not named by their digests, each once")
    for digest, size in stored_constants(manifest.variants).items():
        if listed.get(digest) != size:
            raise InvalidArtifact(f"{name} is damaged: constant {digest[:12]} of {size} bytes is no section of it")
    if sum(listed.values()) > MAX_CONSTANT_BYTES:
        raise InvalidArtifact(f"{name} has more than {MAX_CONSTANT_BYTES} bytes of constants")


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
    try:
        check_constants(variant)
    except InvalidArtifact as failure:
        raise InvalidArtifact(f"{where}: {failure.message}") from failure


def _describe(entry: Section) -> str:
    return f"section {entry.id} ({entry.kind!r}, {entry.name[:80]!r})"
