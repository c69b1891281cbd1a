"""The tables of the tracker. Plain types only: the same definitions serve SQLite and PostgreSQL.

A change here needs a migration in ``tracker/migrations/versions`` and the new ``HEAD``.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, Text

#: The newest migration.
HEAD = "0001"

metadata = MetaData()

#: Single numbers by name: ``fence`` is the highest fencing token given.
counters = Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

#: Every device ever registered and not forgotten. Its state is not here: it is its agent's to say.
devices = Table(
    "devices",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("agent_id", String(255), nullable=False),
    Column("attributes", Text, nullable=False),  # JSON object of strings
    Column("target", LargeBinary, nullable=False),  # crossfarm.v1.Target
    Column("seen_unix_ms", BigInteger, nullable=False),
)

#: Leases that run or whose end is not confirmed, and, for a short time, why others ended. ``session_token`` is what its
#: client must show: whoever reads this table can take over running leases, so the file is its owner's alone.
leases = Table(
    "leases",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("device_id", String(255), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("fencing_token", BigInteger, nullable=False),
    Column("session_token", String(255), nullable=False),
    Column("address", String(255), nullable=False),
    Column("outcome", LargeBinary, nullable=True),  # crossfarm.v1.Outcome
    Column("request_id", String(255), nullable=False),
    Column("selector", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("client", String(255), nullable=False),
    Column("ttl_ms", BigInteger, nullable=False),
    Column("limits", LargeBinary, nullable=False),  # crossfarm.v1.SessionLimits
    Column("opened_unix_ms", BigInteger, nullable=False),
)
