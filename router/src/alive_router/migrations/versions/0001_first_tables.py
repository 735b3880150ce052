"""The first tables: workspaces, sessions, turns."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "workspaces",
        sa.Column("workspace_id", sa.String(63), primary_key=True),
        sa.Column("settings", sa.LargeBinary, nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("workspace_id", sa.String(63), primary_key=True),
        sa.Column("session_id", sa.String(128), primary_key=True),
        sa.Column("provider_id", sa.String(63), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "turns",
        sa.Column("workspace_id", sa.String(63), primary_key=True),
        sa.Column("turn_id", sa.String(128), primary_key=True),
        sa.Column("session_id", sa.String(128), nullable=False),
        sa.Column("provider_id", sa.String(63), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("turns", "sessions", "workspaces"):
        op.drop_table(table)
