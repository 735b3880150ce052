"""The time at which an attempt began, among what tells it apart from others."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_TURN = ["workspace_id", "turn_id", "provider_id", "attempt"]

_STARTS = """
UPDATE usage SET start_time = (
  SELECT o.start_time FROM outcomes o WHERE o.workspace_id = usage.workspace_id AND o.turn_id = usage.turn_id
  AND o.provider_id = usage.provider_id AND o.attempt = usage.attempt
)
"""


_LATER = """
DELETE FROM {0} WHERE start_time > (
  SELECT min(o.start_time) FROM outcomes o WHERE o.workspace_id = {0}.workspace_id AND o.turn_id = {0}.turn_id
  AND o.provider_id = {0}.provider_id AND o.attempt = {0}.attempt
)
"""


def upgrade() -> None:
    """Add it where it is not there, and put it into the keys."""
    with op.batch_alter_table("usage") as usage:
        usage.add_column(sa.Column("start_time", sa.DateTime(timezone=True)))
    op.execute(_STARTS)
    with op.batch_alter_table("usage") as usage:
        usage.alter_column("start_time", nullable=False)
    _key("outcomes", [*_TURN, "start_time"])
    _key("usage", [*_TURN, "start_time", "model"])


def downgrade() -> None:
    """Take it away again, with the attempts that only it told apart from their first."""
    op.execute(_LATER.format("outcomes"))
    op.execute(_LATER.format("usage"))
    _key("outcomes", _TURN)
    _key("usage", [*_TURN, "model"])
    with op.batch_alter_table("usage") as usage:
        usage.drop_column("start_time")


def _key(name: str, columns: list[str]) -> None:
    """Have a table's key be these columns; SQLite can only copy it into one that has the key."""
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint(f"{name}_pkey", name, type_="primary")
        op.create_primary_key(f"{name}_pkey", name, columns)
        return
    table = sa.Table(name, sa.MetaData(), autoload_with=op.get_bind())
    for column in table.columns:
        column.primary_key = column.name in columns
    table.append_constraint(sa.PrimaryKeyConstraint(*columns))
    with op.batch_alter_table(name, copy_from=table, recreate="always"):
        pass
