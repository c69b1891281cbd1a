"""What the tracker saves, it reads back; its tables have a history; its files are its own."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from crossfarm import errors, selectors
from crossfarm.wire.v1 import tracker_pb2 as wire
from tracker import events, migrations, schema
from tracker.state import Device, Lease, Phase, Request
from tracker.store import Store, sqlite_url

DEVICE = Device(
    "lab/pi", "lab", {"kind": "cpu", "note": 'a "quoted", ünusual word'}, target=b"\x00\xff", since=5, seen=5
)
REQUEST = Request(
    key="lease-1",
    request_id="r1",
    stream=None,
    selector=selectors.parse('kind=cpu,note="a, b",!usb'),
    priority=70,
    order=0,
    opened=3,
    deadline=None,
    ttl_ms=30_000,
    client="ann@desk",
    limits=wire.SessionLimits(call_ms=1, memory_bytes=1 << 40),
    secret=b"",
)
LEASE = Lease("lease-1", REQUEST, "lab/pi", (1 << 62) + 1, "token", Phase.ACTIVE, deadline=0, address="[::1]:4711")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "state")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


def test_what_is_saved_is_read_back_by_the_next_tracker(url: str) -> None:
    first = Store(url)
    first.commit([events.SaveFence(1), events.SaveDevice(DEVICE), events.SaveLease(LEASE)])
    first.commit([events.SaveFence(1 << 62)])
    first.close()
    second = Store(url)
    saved = second.load()
    second.close()
    assert (saved.fence, saved.devices, saved.leases) == (1 << 62, [DEVICE], [LEASE])


def test_a_change_replaces_what_was_there_and_a_drop_removes_it(store: Store) -> None:
    ended = replace(LEASE, phase=Phase.ENDED, outcome=wire.Outcome(kind=wire.Outcome.EXPIRED))
    store.commit([events.SaveDevice(DEVICE), events.SaveLease(LEASE)])
    store.commit([events.SaveLease(ended), events.SaveDevice(replace(DEVICE, seen=9, since=9))])
    assert store.load().leases == [ended]
    assert store.load().devices[0].seen == 9
    store.commit([events.DropLease("lease-1"), events.DropDevice("lab/pi"), events.DropLease("never-was")])
    assert (store.load().devices, store.load().leases) == ([], [])


def test_changes_are_saved_together_or_not_at_all(store: Store) -> None:
    nameless = replace(DEVICE, id=None)  # type: ignore[arg-type]
    with pytest.raises(errors.InfrastructureError, match="cannot save its state"):
        store.commit([events.SaveFence(7), events.SaveDevice(nameless)])
    assert store.load().fence == 0
    store.commit([events.SaveFence(8)])
    assert store.load().fence == 8


def test_a_fresh_database_gets_the_tables_that_the_code_uses(url: str) -> None:
    Store(url).close()
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_the_newest_migration_is_the_one_that_the_code_expects() -> None:
    assert migrations.scripts().get_current_head() == schema.HEAD


def test_a_migration_that_breaks_off_leaves_nothing_half_made(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = sa.create_engine(url)
    module = migrations.scripts().get_revision("head").module
    create = module.op.create_table

    def dies_at_leases(name: str, *columns: sa.Column[object]) -> None:
        if name == "leases":
            raise KeyboardInterrupt
        create(name, *columns)

    monkeypatch.setattr("alembic.op.create_table", dies_at_leases)
    with pytest.raises(KeyboardInterrupt), engine.connect() as connection:
        migrations.upgrade(connection)
    monkeypatch.undo()
    engine.dispose()
    store = Store(url)
    assert store.load().devices == []
    store.close()


def test_a_database_of_a_newer_release_is_refused(url: str) -> None:
    Store(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9000'"))
    engine.dispose()
    with pytest.raises(errors.UsageError, match="newer release"):
        Store(url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    (tmp_path / "tracker.db").write_bytes(b"not a database, but long enough to be taken for one" * 40)
    with pytest.raises(errors.UsageError, match="not a database"):
        Store(url)


def test_a_state_directory_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.UsageError, match="cannot use"):
        sqlite_url(tmp_path / "file" / "state")


def test_only_the_owner_can_read_session_tokens(url: str, store: Store) -> None:
    store.commit([events.SaveLease(LEASE)])
    database = Path(sa.make_url(url).database or "")
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
