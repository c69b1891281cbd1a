"""The envelope says of any bytes what they are, or exactly what is wrong with them."""

from __future__ import annotations

import pytest

from crossfarm import __version__
from crossfarm.compat import envelope
from crossfarm.errors import InvalidArtifact, InvalidModule

DATA = envelope.write("ir", b"the payload", 3, 2, ["b", "a", "b"])


def test_what_is_written_is_read() -> None:
    found = envelope.read(DATA, "ir", (1, 3))
    assert (found.kind, found.version, found.min_reader, found.features) == ("ir", 3, 2, ("a", "b"))
    assert found.producer == f"crossfarm {__version__}"
    assert bytes(found.payload) == b"the payload"
    assert found.size == len(DATA)


def test_the_same_input_gives_the_same_bytes() -> None:
    assert envelope.write("ir", b"the payload", 3, 2, ["a", "b"]) == DATA


def test_the_frozen_beginning_is_where_it_always_was() -> None:
    assert DATA[:12] == b"\x89CFARM\r\n\x01\x00\x00\x00"


@pytest.mark.parametrize("size", range(len(DATA)))
def test_every_truncation_is_called_one(size: int) -> None:
    with pytest.raises(InvalidArtifact, match=f"truncated: {size} bytes" if size else "truncated|not a crossfarm file"):
        envelope.read(DATA[:size], "ir", (1, 3))


@pytest.mark.parametrize("position", range(len(DATA)))
def test_every_changed_byte_is_noticed(position: int) -> None:
    changed = bytearray(DATA)
    changed[position] ^= 0x10
    with pytest.raises(InvalidArtifact):
        envelope.read(changed, "ir", (1, 3))


def test_a_changed_payload_is_told_from_a_damaged_header() -> None:
    with pytest.raises(InvalidArtifact, match="changed after it was written"):
        envelope.read(DATA[:-1] + b"!", "ir", (1, 3))
    damaged = bytearray(DATA)
    damaged[30] ^= 1
    with pytest.raises(InvalidArtifact, match="header does not match its checksum"):
        envelope.read(damaged, "ir", (1, 3))


def test_another_file_is_called_that() -> None:
    with pytest.raises(InvalidArtifact, match="not a crossfarm file: it begins with b'\\\\x7fELF"):
        envelope.read(b"\x7fELF" + bytes(100), "ir", (1, 3))


def test_another_kind_is_named() -> None:
    with pytest.raises(InvalidArtifact, match="holds 'ir', not 'artifact'"):
        envelope.read(DATA, "artifact", (1, 3))


def test_a_file_from_the_future_names_producer_version_needed_and_what_is_read() -> None:
    with pytest.raises(InvalidModule) as caught:
        envelope.read(envelope.write("ir", b"", 9, 7), "ir", (1, 3), error=InvalidModule, what="net.cfir")
    text = str(caught.value)
    assert "net.cfir comes from the future" in text
    assert f"crossfarm {__version__} wrote it as ir version 9" in text
    assert "reader of version 7; this one reads 1 to 3" in text
    assert "upgrade crossfarm" in text


def test_a_newer_version_that_uses_nothing_new_is_read() -> None:
    assert envelope.read(envelope.write("ir", b"", 9, 3), "ir", (1, 3)).version == 9


def test_versions_compare_as_integers() -> None:
    with pytest.raises(InvalidArtifact, match="future"):
        envelope.read(envelope.write("ir", b"", 10, 10), "ir", (1, 9))


def test_a_version_too_old_is_told() -> None:
    with pytest.raises(InvalidArtifact, match=r"ir version 1, written by crossfarm .*; this reader reads 2 to 3"):
        envelope.read(envelope.write("ir", b"", 1, 1), "ir", (2, 3))


def test_a_feature_that_the_reader_lacks_is_named() -> None:
    with pytest.raises(InvalidArtifact, match="does not know: b"):
        envelope.read(DATA, "ir", (1, 3), understood={"a"})
    assert envelope.read(DATA, "ir", (1, 3), understood={"a", "b"})


def test_bytes_after_the_end_are_refused_unless_they_are_the_callers() -> None:
    with pytest.raises(InvalidArtifact, match="4 bytes follow its end"):
        envelope.read(DATA + b"more", "ir", (1, 3))
    found = envelope.read(DATA + b"more", "ir", (1, 3), trailing=True)
    assert (DATA + b"more")[found.size :] == b"more"
