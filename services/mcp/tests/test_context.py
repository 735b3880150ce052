"""For whom and where the tools act."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alive_mcp.context import read_context, take_context
from alive_mcp.errors import Misconfigured

from .conftest import SECRET, SESSION, World

BIN = Path(sys.prefix) / "bin"


@pytest.mark.parametrize("server", ["tools", "workspace", "email"])
def test_a_server_without_its_context_says_what_is_missing(server: str) -> None:
    """One line on standard error, exit code 2, and nothing where the protocol goes."""
    done = subprocess.run(
        [BIN / f"alive-mcp-{server}"], env={}, capture_output=True, text=True, check=False, timeout=30
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"alive-{server}: ALIVE_WORKSPACE_ID, " in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("ALIVE_WORKSPACE_ID", None, "ALIVE_WORKSPACE_ID"),
        ("ALIVE_WORKSPACE_ID", "", "ALIVE_WORKSPACE_ID"),
        ("ALIVE_USER_ID", None, "ALIVE_USER_ID"),
        ("ALIVE_CONNECTED_PROVIDERS", None, "ALIVE_CONNECTED_PROVIDERS"),
        ("ALIVE_API_URL", "ftp://x", "http or https"),
        ("ALIVE_WORKSPACE_PATH", "relative", "absolute path of a directory"),
        ("ALIVE_WORKSPACE_PATH", "/no/such/place", "absolute path of a directory"),
        ("ALIVE_SESSION_COOKIE", None, "ALIVE_API_TOKEN must be set"),
    ],
)
def test_what_is_missing_or_wrong_is_named(world: World, name: str, value: str | None, why: str) -> None:
    """Before anything is served."""
    changed = {**world.environment, name: value}
    environment = {key: one for key, one in changed.items() if one is not None}

    with pytest.raises(Misconfigured, match=why) as problem:
        read_context(environment)
    assert SECRET not in str(problem.value)


def test_a_turns_token_takes_the_secrets_place(world: World) -> None:
    """Where there is one, the session and the secret are not used even when they are there."""
    context = world.context(ALIVE_API_TOKEN="token")

    assert context.headers == {"x-turn-token": "token"}
    assert world.context().headers["cookie"] == SESSION


def test_the_context_shows_and_keeps_no_secret(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in its text nor in the variables that programs of a tool would inherit."""
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    context = take_context()

    assert SECRET not in repr(context)
    assert not [name for name, value in os.environ.items() if value in {SECRET, SESSION}]
