"""An artifact's constants: what each parameter that is one comes from, and the content of those that are stored.

A function's parameter with a ``constant`` is not given by callers. Its text is ``sha256:`` and the hex digest of the
content's bytes (little-endian, compact, row-major), or ``FUNCTION:N``: the N-th output of that entry point of the same
variant, which runs once where the artifact is loaded, and whose own inputs are constants all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from crossfarm.artifact.signature import MAX_ELEMENTS, is_output
from crossfarm.artifact.sizes import Size
from crossfarm.errors import InvalidArtifact, NotFound
from crossfarm.ir import dtype as dt
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, Parameter, Variant

_RAW = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_PREPARED = re.compile(r"(.+):(0|[1-9][0-9]{0,4})", re.ASCII | re.DOTALL)


@dataclass(frozen=True)
class Origin:
    """Where a constant comes from.

    Attributes:
        digest: hex SHA-256 of its content, where that is stored; else "".
        function, output: else the entry point that makes it, and which of its outputs it is.
    """

    digest: str = ""
    function: str = ""
    output: int = 0


def origin_of(parameter: Parameter) -> Origin | None:
    """Where the parameter's content comes from; None for one that callers give. Raises InvalidArtifact."""
    text = parameter.constant
    if not text:
        return None
    if (match := _RAW.fullmatch(text)) is not None:
        return Origin(digest=match[1])
    if (match := _PREPARED.fullmatch(text)) is not None and match[1] != "sha256":
        return Origin(function=match[1], output=int(match[2]))
    raise InvalidArtifact(f"parameter {parameter.name[:80]!r} comes from {text[:80]!r}, which is no constant")


def shape_of(parameter: Parameter) -> tuple[int, ...]:
    """The shape of a constant. Raises InvalidArtifact where it depends on anything."""
    try:
        shape = tuple(Size(extent, 0).evaluate(()) for extent in parameter.shape)
    except (ValueError, ZeroDivisionError):
        shape = (-1,)
    elements = 1
    for extent in shape:
        elements *= extent
    if min(shape, default=0) < 0 or elements > MAX_ELEMENTS:
        raise InvalidArtifact(f"parameter {parameter.name[:80]!r} is a constant, but its shape is none")
    return shape


def bytes_of(parameter: Parameter) -> int:
    """Bytes of a constant's content. Raises InvalidArtifact as ``shape_of``, and for an unknown dtype."""
    if parameter.dtype not in dt.SCALARS:
        raise InvalidArtifact(f"parameter {parameter.name[:80]!r} has an unknown dtype {parameter.dtype[:40]!r}")
    size = dt.itemsize(parameter.dtype)
    for extent in shape_of(parameter):
        size *= extent
    return size


def stored_constants(variants: Iterable[Variant]) -> dict[str, int]:
    """Hex digest → bytes of every content that functions use, in the order of first use.

    Raises:
        InvalidArtifact: a parameter's constant is malformed, or one digest is said to have two sizes.
    """
    found: dict[str, int] = {}
    for variant in variants:
        for entry in variant.entry_points:
            for parameter in entry.parameters:
                origin = origin_of(parameter)
                if origin is None or not origin.digest:
                    continue
                size = bytes_of(parameter)
                if found.setdefault(origin.digest, size) != size:
                    raise InvalidArtifact(f"constant {origin.digest[:12]} is said to have two sizes")
    return found


def preparing_functions(variant: Variant) -> set[str]:
    """Names of the entry points that make constants for others."""
    origins = (origin_of(parameter) for entry in variant.entry_points for parameter in entry.parameters)
    return {origin.function for origin in origins if origin is not None and origin.function}


def check_constants(variant: Variant) -> None:
    """Raises InvalidArtifact where a function's constants cannot be had; the message names function and parameter."""
    entries = {entry.name: entry for entry in variant.entry_points}
    needs: dict[str, set[str]] = {}
    for entry in variant.entry_points:
        needs[entry.name] = set()
        for parameter in entry.parameters:
            origin = origin_of(parameter)
            if origin is None:
                continue
            if parameter.kind != Parameter.BUFFER or parameter.role != Parameter.IN:
                raise _wrong(entry, parameter, "is a constant, but no buffer that is only read")
            shape_of(parameter)
            if origin.function:
                _check_prepared(entry, parameter, origin, entries)
                needs[entry.name].add(origin.function)
    users: dict[str, list[str]] = {}
    for name, wanted in needs.items():
        for maker in wanted:
            users.setdefault(maker, []).append(name)
    ready = [name for name, wanted in needs.items() if not wanted]
    for name in ready:  # grows while it is walked
        for user in users.get(name, ()):
            needs[user].discard(name)
            if not needs[user]:
                ready.append(user)
    if len(ready) < len(needs):
        stuck = next(name for name, wanted in needs.items() if wanted)
        raise InvalidArtifact(f"function {stuck[:80]!r} would need its own result as a constant")


def _check_prepared(entry: EntryPoint, parameter: Parameter, origin: Origin, entries: Mapping[str, EntryPoint]) -> None:
    maker = entries.get(origin.function)
    if maker is None:
        raise _wrong(entry, parameter, f"is made by function {origin.function[:80]!r}, which is not there")
    outputs = [p for p in maker.parameters if is_output(p)]
    if not all(is_output(p) or p.constant for p in maker.parameters):
        raise _wrong(entry, parameter, f"is made by function {maker.name!r}, whose inputs are not all constants")
    if origin.output >= len(outputs):
        raise _wrong(entry, parameter, f"is output {origin.output} of {maker.name!r}, which has {len(outputs)}")
    made = outputs[origin.output]
    if made.dtype != parameter.dtype or shape_of(made) != shape_of(parameter):
        raise _wrong(entry, parameter, f"is not of the dtype and shape that {maker.name!r} gives {made.name!r}")


def _wrong(entry: EntryPoint, parameter: Parameter, what: str) -> InvalidArtifact:
    return InvalidArtifact(f"parameter {parameter.name[:80]!r} of function {entry.name[:80]!r} {what}")


class Constants(Mapping[str, memoryview]):
    """Contents that are at hand, by hex digest, in the artifact's order. Each is checked when it is first used.

    Args:
        name: the artifact's, for messages.
        sizes: bytes of each content that the artifact's functions use.
        sources: where contents are looked for, in order; those of other digests are left alone.

    Attributes:
        sizes, sources: as given.
    """

    def __init__(self, name: str, sizes: Mapping[str, int], sources: tuple[Mapping[str, memoryview], ...]) -> None:
        self._name = name
        self.sizes = sizes
        self.sources = sources
        self._checked: dict[str, memoryview] = {}

    def __getitem__(self, digest: str) -> memoryview:
        """The content, read-only.

        Raises:
            NotFound: it is not here, or no function uses it.
            InvalidArtifact: it is not what it was when the artifact was built.
        """
        known = self._checked.get(digest)
        if known is not None:
            return known
        if digest not in self:
            raise NotFound(
                f"the content of constant {digest[:12]} of artifact {self._name!r} is not here",
                hint="open the file that the built artifact was saved to, or add the model's constants: "
                "artifact.with_constants(…)",
            )
        content = next(source[digest] for source in self.sources if digest in source).cast("B").toreadonly()
        if content.nbytes != self.sizes[digest] or hashlib.sha256(content).hexdigest() != digest:
            raise InvalidArtifact(
                f"constant {digest[:12]} of artifact {self._name!r} was changed after it was built: its content does "
                "not match its SHA-256",
                hint="get a fresh copy of the file, or give the model's constants again",
            )
        self._checked[digest] = content
        return content

    def __contains__(self, digest: object) -> bool:
        return digest in self.sizes and any(digest in source for source in self.sources)

    def __iter__(self) -> Iterator[str]:
        return (digest for digest in self.sizes if digest in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
