"""What survives a kill of the tracker: devices, leases, and the fencing counter, in SQL.

SQLite runs in WAL mode with ``synchronous=NORMAL``: a commit is in the kernel before its effects are carried out, so
``kill -9`` at any moment loses nothing. A power failure may lose the commits since the log was last synced, at worst a
lease whose client then has to acquire again: an agent that holds a lease unknown to the tracker is told to end it, and
raises the fencing counter above it. ``FULL`` would cost an fsync, milliseconds, for each lease.

``locking_mode=EXCLUSIVE`` keeps a second tracker off the same files, and needs no shared memory beside them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from crossfarm import selectors
from crossfarm.errors import InfrastructureError, UsageError
from crossfarm.wire.v1 import tracker_pb2 as wire

from . import events, schema
from .state import Device, Lease, Phase, Request

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """Everything that was saved."""

    fence: int
    devices: list[Device]
    leases: list[Lease]


def sqlite_url(directory: Path) -> str:
    """The database inside a state directory, which is made (for its owner only) if it is not there."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as failure:
        raise UsageError(f"cannot use {directory} for the tracker's state: {failure.strerror}") from failure
    return f"sqlite:///{directory / 'tracker.db'}"


class Store:
    """One connection to the tracker's database; used from one thread at a time.

    Raises (the constructor):
        UsageError: the database cannot be opened, is another tracker's, or was written by a newer release.
    """

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.StaticPool)
        try:
            self._connection = self._open()
        except BaseException:
            self._engine.dispose()
            raise

    def load(self) -> Saved:
        """Reads everything; used once, at start."""
        run = self._connection.execute
        with self._connection.begin():
            fence = run(sa.select(schema.counters.c.value).where(schema.counters.c.name == "fence")).scalar()
            devices = [device_of(row._asdict()) for row in run(sa.select(schema.devices).order_by(schema.devices.c.id))]
            leases = [lease_of(row._asdict()) for row in run(sa.select(schema.leases).order_by(schema.leases.c.id))]
        return Saved(fence or 0, devices, leases)

    def commit(self, changes: Iterable[events.Change]) -> None:
        """Saves all changes, in order, or none.

        Raises:
            InfrastructureError: the database refused (disk full, gone). The caller's state is ahead of the disk: stop.
        """
        try:
            with self._connection.begin():
                for change in changes:
                    self._apply(change)
        except sa.exc.SQLAlchemyError as failure:
            raise InfrastructureError(
                f"the tracker cannot save its state: {failure}", hint="see that its disk is there and has space"
            ) from failure

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def _open(self) -> sa.Connection:
        try:
            connection = self._engine.connect()
            if self._engine.dialect.name == "sqlite":
                database = self._engine.url.database
                if database and os.path.exists(database):
                    os.chmod(database, 0o600)
                for pragma in ("busy_timeout=0", "locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL"):
                    connection.exec_driver_sql(f"PRAGMA {pragma}")
                connection.rollback()
            self._migrate(connection)
        except sa.exc.DBAPIError as failure:
            raise UsageError(
                f"cannot open the tracker's state {self._engine.url}: {failure.orig}",
                hint="another tracker uses it, or it is damaged or cannot be written; choose another --state",
            ) from failure
        return connection

    def _migrate(self, connection: sa.Connection) -> None:
        """Brings the tables up to date. Alembic is imported only when there is something to do: it takes 0.2 s."""
        current = None
        with connection.begin():
            if sa.inspect(connection).has_table("alembic_version"):
                current = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        if current == schema.HEAD:
            return
        if current is not None and current > schema.HEAD:
            raise UsageError(
                f"the tracker's state {self._engine.url} is of a newer release (schema {current}, known {schema.HEAD})",
                hint="run that release, or choose another --state",
            )
        from .migrations import upgrade

        upgrade(connection)

    def _apply(self, change: events.Change) -> None:
        run = self._connection.execute
        match change:
            case events.SaveLease(lease):
                run(_DELETE_LEASE, {"key": lease.id})
                run(_INSERT_LEASE, lease_row(lease))
            case events.DropLease(lease_id):
                run(_DELETE_LEASE, {"key": lease_id})
            case events.SaveDevice(device):
                run(_DELETE_DEVICE, {"key": device.id})
                run(_INSERT_DEVICE, device_row(device))
            case events.DropDevice(device_id):
                run(_DELETE_DEVICE, {"key": device_id})
            case events.SaveFence(fence):
                run(_DELETE_COUNTER, {"key": "fence"})
                run(_INSERT_COUNTER, {"name": "fence", "value": fence})


# Delete and insert: the one way to write "this row is now so" that every database understands.
_DELETE_LEASE = sa.delete(schema.leases).where(schema.leases.c.id == sa.bindparam("key"))
_DELETE_DEVICE = sa.delete(schema.devices).where(schema.devices.c.id == sa.bindparam("key"))
_DELETE_COUNTER = sa.delete(schema.counters).where(schema.counters.c.name == sa.bindparam("key"))
_INSERT_LEASE = sa.insert(schema.leases)
_INSERT_DEVICE = sa.insert(schema.devices)
_INSERT_COUNTER = sa.insert(schema.counters)


def device_row(device: Device) -> dict[str, Any]:
    """A device as a row."""
    return {
        "id": device.id,
        "agent_id": device.agent_id,
        "attributes": json.dumps(dict(device.attributes), sort_keys=True),
        "target": device.target,
        "seen_unix_ms": device.seen,
    }


def device_of(row: Mapping[str, Any]) -> Device:
    """What a row says of a device: all but its state, which its agent will say."""
    return Device(
        id=row["id"],
        agent_id=row["agent_id"],
        attributes=json.loads(row["attributes"]),
        target=row["target"],
        since=row["seen_unix_ms"],
        seen=row["seen_unix_ms"],
    )


def lease_row(lease: Lease) -> dict[str, Any]:
    """A lease as a row; its client's stream and its times are not kept."""
    request = lease.request
    return {
        "id": lease.id,
        "device_id": lease.device_id,
        "phase": lease.phase.value,
        "fencing_token": lease.fencing_token,
        "session_token": lease.session_token,
        "address": lease.address,
        "outcome": lease.outcome.SerializeToString() if lease.outcome is not None else None,
        "request_id": request.request_id,
        "selector": str(request.selector),
        "priority": request.priority,
        "client": request.client,
        "ttl_ms": request.ttl_ms,
        "limits": request.limits.SerializeToString(),
        "opened_unix_ms": request.opened,
    }


def lease_of(row: Mapping[str, Any]) -> Lease:
    """The lease that a row says."""
    request = Request(
        key=row["id"],
        request_id=row["request_id"],
        stream=None,
        selector=selectors.parse(row["selector"]),
        priority=row["priority"],
        order=0,
        opened=row["opened_unix_ms"],
        deadline=None,
        ttl_ms=row["ttl_ms"],
        client=row["client"],
        limits=wire.SessionLimits.FromString(row["limits"]),
        secret=b"",  # only a start that failed needs it, and no start is taken up again after a restart
    )
    return Lease(
        id=row["id"],
        request=request,
        device_id=row["device_id"],
        fencing_token=row["fencing_token"],
        session_token=row["session_token"],
        phase=Phase(row["phase"]),
        deadline=0,
        address=row["address"],
        outcome=wire.Outcome.FromString(row["outcome"]) if row["outcome"] is not None else None,
    )
