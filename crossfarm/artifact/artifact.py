"""``Artifact``: what a build gives. One file with everything a device needs, and the module it came from."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from crossfarm.artifact import container
from crossfarm.artifact.constants import Constants, stored_constants
from crossfarm.artifact.files import write_atomically
from crossfarm.errors import InvalidArtifact, NotFound
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, Manifest, Variant

if TYPE_CHECKING:
    from crossfarm.ir.module import IRModule


class Artifact:
    """An artifact in memory, fully checked. Make one with ``open``, ``from_bytes`` or ``write_artifact``.

    A model's artifact has constants (weights). Its identity and what is built, stored and sent to devices is its
    *core*, which knows of constants that they are; their content may be there beside it.

    Attributes:
        data: the core's bytes: the whole file where there is no content of constants.
        manifest: what is in it; treat it as read-only.
        constants: hex digest → content, of those constants whose content is here, in the manifest's order. Looked up
            where it lies (the file is mapped, not read) and checked when it is first used.
    """

    def __init__(
        self, contents: container.Contents, sources: tuple[Mapping[str, memoryview], ...] | None = None
    ) -> None:
        self.data = contents.core
        self.manifest: Manifest = contents.manifest
        self._contents = contents
        self.constants = Constants(
            self.manifest.name,
            stored_constants(self.manifest.variants),
            (contents.constants,) if sources is None else sources,
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Artifact:
        """Reads and checks the file at ``path``; constants in it stay there, so it must not be written to any more.

        Raises:
            NotFound, InvalidArtifact.
        """
        try:
            with open(path, "rb") as file:
                empty = os.fstat(file.fileno()).st_size == 0
                held = memoryview(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError as failure:
            raise NotFound(f"there is no artifact at {os.fspath(path)!r}", hint="check the path") from failure
        except OSError as failure:
            raise InvalidArtifact(f"cannot read {os.fspath(path)!r}: {failure.strerror}") from failure
        return cls(container.unpack(held, what=os.fspath(path)))

    @classmethod
    def from_bytes(cls, data: bytes, *, what: str = "") -> Artifact:
        """Checks ``data`` in full, but for constants. Raises InvalidArtifact; ``what`` is how messages call it."""
        return cls(container.unpack(data, what=what))

    def with_constants(self, constants: Mapping[str, memoryview]) -> Artifact:
        """The same artifact with content for its constants, beside what it has.

        Args:
            constants: hex digest → content; those that no function uses are left alone. It is looked into when a
                constant is used, not before.
        """
        return Artifact(self._contents, (*self.constants.sources, constants))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the core's bytes in hex: the artifact's identity, whether constants are here or not."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of the core."""
        return len(self.data)

    @property
    def constant_sizes(self) -> Mapping[str, int]:
        """Hex digest → bytes of every constant that has content, here or elsewhere."""
        return self.constants.sizes

    @property
    def name(self) -> str:
        """The module's name."""
        return self.manifest.name

    @property
    def producer(self) -> str:
        """The release that wrote it, for people."""
        return self._contents.producer

    @property
    def variants(self) -> Sequence[Variant]:
        """The variants, in order of preference."""
        return self.manifest.variants

    @cached_property
    def entry_points(self) -> Mapping[str, EntryPoint]:
        """Functions by name; where variants differ, the first one that has it speaks."""
        found: dict[str, EntryPoint] = {}
        for variant in self.manifest.variants:
            for entry in variant.entry_points:
                found.setdefault(entry.name, entry)
        return found

    def section(self, number: int) -> bytes:
        """The section of that id, one of the core's. Raises NotFound."""
        try:
            return bytes(self._contents.sections[number])
        except KeyError:
            raise NotFound(f"artifact {self.name!r} has no section {number}") from None

    def code(self, variant: Variant) -> bytes:
        """The native library or the kernels of one of ``variants``. Raises NotFound where it has none."""
        return self.section(variant.library_section)

    def sources(self) -> dict[str, str]:
        """Generated sources by name, where the build kept them."""
        entries = (entry for entry in self.manifest.sections if entry.kind == container.SOURCE)
        return {entry.name: self.section(entry.id).decode("utf-8", "replace") for entry in entries}

    def module(self) -> IRModule:
        """The IRModule it was built from. Raises NotFound where it carries none, InvalidModule for a damaged one."""
        from crossfarm.ir.serialize import loads  # devices that only run code never load the IR

        return loads(self.section(self.manifest.ir_section))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file, atomically: the core, and all constants behind it where their content is here.

        Raises:
            NotFound: the content of some constants is here and that of others is not.
            InvalidArtifact: content is not what it was when the artifact was built.
            ResourceExhausted: the disk is full. UsageError: a bad path.
        """
        here = list(self.constants)
        if here and (missing := [digest[:12] for digest in self.constants.sizes if digest not in self.constants]):
            raise NotFound(
                f"the content of {len(here)} constants of artifact {self.name!r} is here, that of {len(missing)} is "
                f"not: {', '.join(missing[:5])}",
                hint="add the rest before it is saved: artifact.with_constants(…)",
            )
        write_atomically(path, self.data, (self.constants[digest] for digest in here))

    def rewritten(self, manifest: Manifest) -> Artifact:
        """The same sections under a changed manifest, whose section entries may be fewer; unknown optional sections
        that it still names are kept, and so are constants that its functions use.

        Raises:
            InvalidArtifact: it names a section that is not there, or is itself malformed.
        """
        named = [entry.id for entry in manifest.sections if entry.kind != container.CONSTANTS]
        missing = [number for number in named if number not in self._contents.sections]
        if missing:
            raise InvalidArtifact(f"the changed manifest names sections that are not there: {missing}")
        packed = container.unpack(container.pack(manifest, self._contents.sections))
        return Artifact(packed, self.constants.sources)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Artifact) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        targets = ", ".join(variant.target.tag or variant.target.kind for variant in self.variants)
        return f"<Artifact {self.name!r} for {targets}, {self.size:,} bytes, {self.digest[:12]}>"


#: Runtime → what the section with its kernels is called.
_KERNEL_FILES = {"opencl": "kernels.cl", "vulkan": "kernels.spv", "cuda": "kernels.ptx"}


def write_artifact(
    name: str,
    variants: Sequence[Variant],
    codes: Sequence[bytes],
    module: bytes = b"",
    sources: Sequence[Mapping[str, str]] = (),
    toolchain: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Artifact:
    """Puts an artifact together; the same input gives the same bytes.

    Args:
        name: the module's name.
        variants: in order of preference; ``library_section`` is filled here.
        codes: native library or kernels, one for each variant, ``b""`` for none.
        module: the ``.cfir`` bytes it was built from, ``b""`` to leave it out (then it cannot be rebuilt).
        sources: generated sources of each variant, name → text; () for none.
        toolchain: versions of what built it.
        options: build options, as text.

    Raises:
        InvalidArtifact: a variant is malformed.
    """
    if len(codes) != len(variants) or len(sources) not in (0, len(variants)):
        raise InvalidArtifact(f"{len(variants)} variants need as many codes and sources, or no sources")
    manifest = container.manifest_of(name, variants, toolchain or {}, options or {})
    bodies: dict[int, bytes] = {}

    def put(kind: str, section_name: str, body: bytes, *, critical: bool = False) -> int:
        number = container.add_section(manifest, kind, section_name, critical=critical)
        bodies[number] = body
        return number

    if module:
        manifest.ir_section = put(container.IR, f"{name}.cfir", module)
    for index, (variant, code) in enumerate(zip(manifest.variants, codes)):
        label = f"variant-{index}/" if len(variants) > 1 else ""
        kind, file = container.LIBRARY, "library"
        if variant.kernels:
            kind, file = container.KERNELS, _KERNEL_FILES.get(variant.runtime, "kernels")
        elif variant.requires.os == "windows":
            file = "library.dll"  # Windows loads no library whose name does not end like this
        variant.library_section = put(kind, f"{label}{file}", code, critical=True) if code else 0
        for source, text in sorted(sources[index].items()) if sources else ():
            put(container.SOURCE, f"{label}{source}", text.encode())
    return Artifact.from_bytes(container.pack(manifest, bodies))
