"""The database's history, one file a step in ``versions``; run at start when the tables are not the newest."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory


def scripts() -> ScriptDirectory:
    """The steps that this release knows."""
    return ScriptDirectory(str(Path(__file__).parent))


def upgrade(connection: sa.Connection, to: str = "head") -> None:
    """Runs the steps that are missing, all in one transaction."""
    directory = scripts()
    target = directory.get_revision(to)
    with connection.begin():
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")  # Python's driver would commit each statement that defines tables
        context = MigrationContext.configure(
            connection,
            opts={"fn": lambda current, _: directory._upgrade_revs(target.revision, current)},
        )
        with Operations.context(context):
            context.run_migrations()
