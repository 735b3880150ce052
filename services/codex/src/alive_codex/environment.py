"""What the Codex CLI sees and reads at its start: an allow-list, built from nothing. As of codex 0.163.0."""

import contextlib
import sqlite3
from pathlib import Path

from alive_kit.launch import Launch
from alive_kit.workspaces import Workspace

_CONFIG = """\
# Written by the Codex service at every start. What differs from turn to turn is given to each thread instead.
check_for_update_on_startup = false
cli_auth_credentials_store = "ephemeral"
allow_login_shell = false

[analytics]
enabled = false

[feedback]
enabled = false

[history]
persistence = "none"

[features]
plugins = false
apps = false
goals = false
multi_agent = false
shell_snapshot = false
unbounded_connection_retries = false

[tools.update_plan]
enabled = true

[tools.experimental_request_user_input]
enabled = false
"""


def codex_home(workspace: Workspace) -> Path:
    """Return where the CLI keeps the sessions of a workspace."""
    return workspace.home / ".codex"


def configure(launch: Launch, workspace: Workspace) -> None:
    """Have the CLI find the configuration that keeps it off the network and out of the service's way."""
    launch.configure(codex_home(workspace) / "config.toml", _CONFIG)


def compact_databases(workspace: Workspace) -> None:
    """Have the CLI's databases forget what was deleted: it stays in free pages otherwise. Not while they are in use."""
    for path in codex_home(workspace).glob("*.sqlite"):
        with contextlib.closing(sqlite3.connect(path)) as database, contextlib.suppress(sqlite3.OperationalError):
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def cli_environment(workspace: Workspace) -> dict[str, str]:
    """Return everything that the CLI sees. The key is not among it: it is given to each thread."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(workspace.home),
        "CODEX_HOME": str(codex_home(workspace)),
        "TMPDIR": str(workspace.tmp),
    }


def version_environment() -> dict[str, str]:
    """Return what the CLI sees when it is only asked for its version."""
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
