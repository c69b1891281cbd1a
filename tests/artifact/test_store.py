"""The local store: what is in it is whole, whoever writes at once, is killed, or runs out of room."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crossfarm.artifact.store import LocalStore, Store
from crossfarm.errors import InvalidArtifact, NotFound, ResourceExhausted, UsageError

DATA = b"an artifact" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_what_is_put_comes_back_by_its_digest(store: LocalStore) -> None:
    as_protocol: Store = store
    assert as_protocol.put(DATA) == DIGEST == as_protocol.put(DATA)
    assert as_protocol.get(DIGEST) == DATA
    assert as_protocol.has(DIGEST)
    assert as_protocol.size(DIGEST) == len(DATA) == store.total_bytes
    assert as_protocol.read(DIGEST, 5, 7) == DATA[5:12]
    assert as_protocol.read(DIGEST, len(DATA), 7) == b""
    assert list(store.digests()) == [DIGEST]


def test_what_is_not_there_is_not_found(store: LocalStore) -> None:
    for method in (store.get, store.size, lambda d: store.read(d, 0, 1)):
        with pytest.raises(NotFound, match=DIGEST):
            method(DIGEST)
    assert not store.has(DIGEST)
    store.remove(DIGEST)


@pytest.mark.parametrize("bad", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 63 + "/", "0" * 64 + "\n"])
def test_nothing_but_a_digest_becomes_a_path(store: LocalStore, bad: str) -> None:
    for method in (store.get, store.has, store.size, store.remove, lambda d: store.upload(d, 1)):
        with pytest.raises(NotFound, match="is not a digest"):
            method(bad)


def test_damage_on_disk_is_found_and_heals(store: LocalStore) -> None:
    store.put(DATA)
    (path,) = store.directory.glob("objects/*/*")
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(InvalidArtifact, match="damaged on disk"):
        store.get(DIGEST)
    store.put(DATA)
    assert store.get(DIGEST) == DATA


def test_an_upload_arrives_in_pieces_or_not_at_all(store: LocalStore) -> None:
    with store.upload(DIGEST, len(DATA)) as upload:
        upload.write(DATA[:100])
        assert not store.has(DIGEST)
        upload.write(DATA[100:])
        assert upload.finish()
    assert store.get(DIGEST) == DATA
    with store.upload(DIGEST, len(DATA)) as upload:
        upload.write(DATA)
        assert not upload.finish()
    assert store.total_bytes == len(DATA)
    assert not list(store.directory.glob("incoming/*"))


def test_an_upload_that_is_not_what_it_said_is_dropped(store: LocalStore) -> None:
    with store.upload(DIGEST, len(DATA)) as upload:
        upload.write(DATA[:-1])
        with pytest.raises(InvalidArtifact, match="10999 of 11000 bytes"):
            upload.finish()
    with store.upload(DIGEST, len(DATA)) as upload, pytest.raises(InvalidArtifact, match="more than the announced"):
        upload.write(DATA + b"x")
    with store.upload(DIGEST, 3) as upload:
        upload.write(b"abc")
        with pytest.raises(InvalidArtifact, match="do not match its digest"):
            upload.finish()
    assert not store.has(DIGEST)
    assert not list(store.directory.glob("incoming/*"))


def test_concurrent_writers_of_the_same_and_of_other_objects_all_succeed(tmp_path: Path) -> None:
    stores = [LocalStore(tmp_path / "store") for _ in range(4)]
    blobs = [bytes([i]) * 10_000 for i in range(20)]

    def write(index: int) -> str:
        return stores[index % 4].put(blobs[index // 4 % 20])

    with ThreadPoolExecutor(8) as threads:
        digests = list(threads.map(write, range(160)))
    assert len(set(digests)) == 20
    assert all(stores[0].get(digest) for digest in digests)
    assert LocalStore(tmp_path / "store").total_bytes == 200_000


def test_a_limit_is_kept_and_counts_what_was_there_before(tmp_path: Path) -> None:
    LocalStore(tmp_path).put(DATA)
    store = LocalStore(tmp_path, max_bytes=len(DATA) + 100)
    store.put(b"x" * 100)
    with pytest.raises(ResourceExhausted, match="do not fit"):
        store.put(b"y")
    with pytest.raises(ResourceExhausted):
        store.upload("0" * 64, 1)
    store.remove(DIGEST)
    store.put(b"y")


_FULL = """
import resource, signal, sys
from crossfarm.artifact.store import LocalStore
from crossfarm.errors import ResourceExhausted
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = LocalStore(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for attempt in (lambda: store.put(b"x" * 10000), lambda: upload()):
    def upload():
        import hashlib
        data = b"y" * 1000000
        with store.upload(hashlib.sha256(data).hexdigest(), len(data)) as u:
            u.write(data)
            u.finish()
    try:
        attempt()
    except ResourceExhausted as failure:
        print(failure.message)
    else:
        print("no error")
print(store.put(b"small"))
"""


def test_a_full_disk_is_told_clearly_and_leaves_nothing_behind(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", _FULL, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert ran.stdout.count("file size limit reached") == 2, ran
    assert hashlib.sha256(b"small").hexdigest() in ran.stdout
    assert [p for p in tmp_path.rglob("*") if p.suffix == ".tmp"] == []
    assert LocalStore(tmp_path).total_bytes == len(b"small")


_WRITER = """
import os, sys
from crossfarm.artifact.store import LocalStore
store = LocalStore(sys.argv[1])
while True:
    print(store.put(os.urandom(200_000)), flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_only_whole_objects(tmp_path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        told = [writer.stdout.readline().decode().strip() for _ in range(3)]
        writer.kill()
        writer.wait()
        writer.stdout.close()
        store = LocalStore(tmp_path)
        assert set(told) <= set(store.digests())
        assert all(len(store.get(digest)) == 200_000 for digest in store.digests())


def test_scratch_files_of_the_dead_are_swept_and_those_at_work_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    old, young = tmp_path / "incoming" / "old.tmp", tmp_path / "incoming" / "young.tmp"
    old.touch()
    young.touch()
    os.utime(old, (1, 1))
    LocalStore(tmp_path)
    assert not old.exists()
    assert young.exists()
    assert store.total_bytes == 0


def test_a_directory_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        LocalStore(tmp_path / "file" / "store")


def test_no_space_left_is_resource_exhausted() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    from crossfarm.artifact.files import write_error

    with pytest.raises(OSError) as failure, open(full, "wb", buffering=0) as file:
        file.write(b"x")
    assert isinstance(write_error(failure.value, full), ResourceExhausted)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
