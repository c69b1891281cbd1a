"""What a shared library says of itself: ELF and PE files, read as far as builds need."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def needed_libraries(library: bytes) -> tuple[str, ...]:
    """Names of the libraries that a shared library needs, in its order: ELF's DT_NEEDED, or a DLL's imports."""
    return tuple(_imported_dlls(library) if library[:2] == b"MZ" else _needed_sonames(library))


def _text(library: bytes, start: int) -> str:
    return library[start : library.index(b"\0", start)].decode()


# --- ELF


def _needed_sonames(library: bytes) -> Iterator[str]:
    wide = library[4] == 2
    order = "<" if library[5] == 1 else ">"
    dynamic = _section(library, order, wide, kind=6)
    if dynamic is None:
        return
    offset, size, strings = dynamic
    entry = struct.Struct(f"{order}{'qQ' if wide else 'iI'}")
    for at in range(offset, offset + size, entry.size):
        tag, value = entry.unpack_from(library, at)
        if tag == 1:
            yield _text(library, strings + value)


def _section(library: bytes, order: str, wide: bool, kind: int) -> tuple[int, int, int] | None:
    """File offset and size of the first section of a type, and the offset of the strings it links to."""
    table = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", library, 40 if wide else 32)[0]
    size, count = struct.unpack_from(f"{order}HH", library, 58 if wide else 46)
    row = struct.Struct(f"{order}{'IIQQQQI' if wide else 'IIIIIII'}")
    rows = [row.unpack_from(library, table + i * size) for i in range(count)]
    for _, type_, _, _, offset, length, linked in rows:
        if type_ == kind:
            return offset, length, rows[linked][4]
    return None


# --- PE (Microsoft, "PE Format"): PE32+, which 64-bit Windows has


def _imported_dlls(library: bytes) -> Iterator[str]:
    header = struct.unpack_from("<I", library, 0x3C)[0]
    sections, optional_size = struct.unpack_from("<H12xH", library, header + 6)
    optional = header + 24
    # the second of the data directories, which begin 112 bytes into the optional header
    address, size = struct.unpack_from("<II", library, optional + 112 + 8)
    if size == 0:
        return
    rows = [struct.unpack_from("<8xIIII", library, optional + optional_size + 40 * i) for i in range(sections)]

    def offset(virtual: int) -> int:
        """Where in the file what will lie at an address is."""
        for length, start, stored, place in rows:
            if start <= virtual < start + max(length, stored):
                return int(place + virtual - start)
        raise ValueError(f"no section of the library has address {virtual:#x}")

    at = offset(address)
    while name := struct.unpack_from("<12xI", library, at)[0]:
        yield _text(library, offset(name))
        at += 20
