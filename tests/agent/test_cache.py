"""What an agent keeps by digest: pieces in and out, checked, and what was used longest ago makes room."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from crossfarm.errors import InvalidArtifact
from crossfarm.wire.tensors import CHUNK_BYTES
from device_agent.worker.artifacts import Cache

CONTENTS = [bytes([number]) * 1000 for number in range(4)]


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def held(cache: Cache) -> list[int]:
    return [i for i, c in enumerate(CONTENTS) if cache.get(digest_of(c), len(c)) is not None]


def aged(directory: Path, *numbers: int) -> None:
    """As if these had been used long ago, the first longest."""
    for age, number in enumerate(numbers):
        digest = digest_of(CONTENTS[number])
        os.utime(directory / "objects" / digest[:2] / digest[2:], ns=(age * 10**9, age * 10**9))


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=3000)
    for content in CONTENTS[:3]:
        cache.put(content)
    aged(tmp_path, 0, 1, 2)
    assert cache.get(digest_of(CONTENTS[0]), 1000) == CONTENTS[0]
    assert cache.copy(digest_of(CONTENTS[1]), 1000, lambda at, part: None)
    cache.put(CONTENTS[3])
    assert held(cache) == [0, 1, 3]


def test_room_is_made_of_what_others_put_there(tmp_path: Path) -> None:
    cache, other = Cache(tmp_path, max_bytes=2500), Cache(tmp_path, max_bytes=2500)
    cache.put(CONTENTS[0])
    other.put(CONTENTS[1])
    aged(tmp_path, 1, 0)
    other.put(CONTENTS[2])
    assert held(cache) == [0, 2]


def test_what_fits_nowhere_costs_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=3000)
    for content in CONTENTS[:3]:
        cache.put(content)
    cache.put(bytes(3001))
    assert held(cache) == [0, 1, 2]


def test_content_comes_in_pieces_and_goes_in_pieces(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    content = bytes(range(256)) * (CHUNK_BYTES // 100)
    cache.keep(
        digest_of(content), len(content), (memoryview(content)[i : i + 999] for i in range(0, len(content), 999))
    )
    copied = bytearray(len(content))
    sizes = []

    def write(at: int, part: memoryview) -> None:
        copied[at : at + len(part)] = part
        sizes.append(len(part))

    assert cache.copy(digest_of(content), len(content), write)
    assert copied == content
    assert max(sizes) == CHUNK_BYTES
    assert not cache.copy(digest_of(content), len(content) - 1, write)
    assert not cache.copy(digest_of(b"unknown"), 7, write)


def test_content_that_is_not_what_it_is_called_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(InvalidArtifact):
        cache.keep(digest_of(CONTENTS[0]), 1000, [memoryview(CONTENTS[1])])
    assert held(cache) == []


def test_damaged_content_is_not_handed_out_and_goes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put(CONTENTS[0])
    digest = digest_of(CONTENTS[0])
    path = tmp_path / "objects" / digest[:2] / digest[2:]
    path.write_bytes(bytes(1000)[:-1] + b"x")
    assert not cache.copy(digest, 1000, lambda at, part: None)
    assert not path.exists()
