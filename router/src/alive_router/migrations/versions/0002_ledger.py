"""The ledger: outcomes, usage, cursors; rollouts; whose a turn is, and when it ended."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    with op.batch_alter_table("turns") as turns:
        turns.add_column(sa.Column("owner_id", sa.String(128), nullable=False, server_default=""))
        turns.add_column(sa.Column("end_time", _TIME))
    op.create_table(
        "rollouts",
        sa.Column("provider_id", sa.String(63), primary_key=True),
        sa.Column("rollout", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "cursors",
        sa.Column("provider_id", sa.String(63), primary_key=True),
        sa.Column("cursor", sa.String(64), nullable=False),
    )
    op.create_table(
        "outcomes",
        *_attempt(),
        sa.Column("terminal", sa.Integer, nullable=False),
        sa.Column("reason", sa.Integer, nullable=False),
        sa.Column("start_time", _TIME, nullable=False),
        sa.Column("end_time", _TIME, nullable=False),
    )
    op.create_table(
        "usage",
        *_attempt(),
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("owner_id", sa.String(128), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("end_time", _TIME, nullable=False),
        sa.Column("turns", sa.Integer, nullable=False),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("cached_input_tokens", sa.BigInteger),
        sa.Column("cache_write_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("model_requests", sa.BigInteger),
        sa.Column("nano_usd", sa.BigInteger),
        sa.Column("price_date", sa.String(10)),
    )
    op.create_index("usage_of_workspace", "usage", ["workspace_id", "end_time"])
    op.create_index("usage_by_time", "usage", ["end_time"])


def downgrade() -> None:
    """Drop them again."""
    for table in ("usage", "outcomes", "cursors", "rollouts"):
        op.drop_table(table)
    with op.batch_alter_table("turns") as turns:
        turns.drop_column("end_time")
        turns.drop_column("owner_id")


def _attempt() -> list[sa.Column[object]]:
    return [
        sa.Column("workspace_id", sa.String(63), primary_key=True),
        sa.Column("turn_id", sa.String(128), primary_key=True),
        sa.Column("provider_id", sa.String(63), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
    ]
