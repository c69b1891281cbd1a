"""The first tables: counters, devices, leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "devices",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("agent_id", sa.String(255), nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.Column("target", sa.LargeBinary, nullable=False),
        sa.Column("seen_unix_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("device_id", sa.String(255), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("fencing_token", sa.BigInteger, nullable=False),
        sa.Column("session_token", sa.String(255), nullable=False),
        sa.Column("address", sa.String(255), nullable=False),
        sa.Column("outcome", sa.LargeBinary, nullable=True),
        sa.Column("request_id", sa.String(255), nullable=False),
        sa.Column("selector", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("client", sa.String(255), nullable=False),
        sa.Column("ttl_ms", sa.BigInteger, nullable=False),
        sa.Column("limits", sa.LargeBinary, nullable=False),
        sa.Column("opened_unix_ms", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("leases", "devices", "counters"):
        op.drop_table(table)
