"""The tables of the router's store, as the migrations beside this module make them."""

from typing import Any

import sqlalchemy as sa

METADATA = sa.MetaData()

_TIME = sa.DateTime(timezone=True)

WORKSPACES = sa.Table(
    "workspaces",
    METADATA,
    sa.Column("workspace_id", sa.String(63), primary_key=True),
    sa.Column("settings", sa.LargeBinary, nullable=False),
    sa.Column("update_time", _TIME, nullable=False),
)

SESSIONS = sa.Table(
    "sessions",
    METADATA,
    sa.Column("workspace_id", sa.String(63), primary_key=True),
    sa.Column("session_id", sa.String(128), primary_key=True),
    sa.Column("provider_id", sa.String(63), nullable=False),
    sa.Column("create_time", _TIME, nullable=False),
    sqlite_with_rowid=False,
)

TURNS = sa.Table(
    "turns",
    METADATA,
    sa.Column("workspace_id", sa.String(63), primary_key=True),
    sa.Column("turn_id", sa.String(128), primary_key=True),
    sa.Column("session_id", sa.String(128), nullable=False),
    sa.Column("provider_id", sa.String(63), nullable=False),
    sa.Column("create_time", _TIME, nullable=False),
    sa.Column("owner_id", sa.String(128), nullable=False, server_default=""),
    sa.Column("end_time", _TIME),
    sqlite_with_rowid=False,
)

SESSION_TURNS = sa.Table(
    "session_turns",
    METADATA,
    sa.Column("workspace_id", sa.String(63), primary_key=True),
    sa.Column("session_id", sa.String(128), primary_key=True),
    sa.Column("turn_id", sa.String(128), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("told", sa.Integer, nullable=False),
    sa.Column("chosen_provider_id", sa.String(63), nullable=False),
    sa.Column("provider_id", sa.String(63), nullable=False),
    sqlite_with_rowid=False,
)
"""The turns of each session in order; a fork has those of its original up to where it was forked."""

ROLLOUTS = sa.Table(
    "rollouts",
    METADATA,
    sa.Column("provider_id", sa.String(63), primary_key=True),
    sa.Column("rollout", sa.LargeBinary, nullable=False),
)

CURSORS = sa.Table(
    "cursors",
    METADATA,
    sa.Column("provider_id", sa.String(63), primary_key=True),
    sa.Column("cursor", sa.String(64), nullable=False),
)


def _attempt() -> list[sa.Column[Any]]:
    """Return the columns that say which attempt at which turn a row is about.

    Attempts are counted anew when a call comes again whose every attempt was refused: the time tells them apart.
    """
    return [
        sa.Column("workspace_id", sa.String(63), primary_key=True),
        sa.Column("turn_id", sa.String(128), primary_key=True),
        sa.Column("provider_id", sa.String(63), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("start_time", _TIME, primary_key=True),
    ]


OUTCOMES = sa.Table(
    "outcomes",
    METADATA,
    *_attempt(),
    sa.Column("terminal", sa.Integer, nullable=False),
    sa.Column("reason", sa.Integer, nullable=False),
    sa.Column("end_time", _TIME, nullable=False),
)

USAGE = sa.Table(
    "usage",
    METADATA,
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
    sa.Index("usage_of_workspace", "workspace_id", "end_time"),
    sa.Index("usage_by_time", "end_time"),
)
