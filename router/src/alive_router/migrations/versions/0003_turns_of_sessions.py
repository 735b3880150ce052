"""The turns of each session in their order, forks included, with who was chosen for them and who took them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_KNOWN = """
INSERT INTO session_turns (workspace_id, session_id, turn_id, number, told, chosen_provider_id, provider_id)
SELECT t.workspace_id, t.session_id, t.turn_id,
  row_number() OVER (PARTITION BY t.workspace_id, t.session_id ORDER BY t.create_time, t.turn_id),
  row_number() OVER (PARTITION BY t.workspace_id, t.session_id ORDER BY t.create_time, t.turn_id) - 1,
  t.provider_id, t.provider_id
FROM turns t JOIN sessions s ON s.workspace_id = t.workspace_id AND s.session_id = t.session_id
"""


def upgrade() -> None:
    """Make the table, with the turns that are known."""
    op.create_table(
        "session_turns",
        sa.Column("workspace_id", sa.String(63), primary_key=True),
        sa.Column("session_id", sa.String(128), primary_key=True),
        sa.Column("turn_id", sa.String(128), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("told", sa.Integer, nullable=False),
        sa.Column("chosen_provider_id", sa.String(63), nullable=False),
        sa.Column("provider_id", sa.String(63), nullable=False),
    )
    op.execute(_KNOWN)


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("session_turns")
