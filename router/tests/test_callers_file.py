"""The file that declares callers, and what makes tokens for it."""

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from alive.agent.v1 import agent_service_pb2, workspace_service_pb2
from alive_router.callers import SCOPES, CallersFile

HASH = hashlib.sha256(b"acme").hexdigest()
FILE = f"""
[[callers]]
name = "acme"
owner = "acme"
workspaces = ["demo", "acme.*"]
scopes = ["turns", "sessions"]
certificates = ["caller"]
[[callers.tokens]]
sha256 = "{HASH}"
expires = 2099-01-01T00:00:00Z
"""


def test_every_call_needs_a_scope() -> None:
    """Of both services; one that is forgotten would be refused."""
    services = [
        agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"],
        workspace_service_pb2.DESCRIPTOR.services_by_name["WorkspaceService"],
    ]
    assert {method.name for service in services for method in service.methods} == set(SCOPES)


def test_a_file_declares_callers(tmp_path: Path) -> None:
    """What is not said is as safe as it can be: no rollouts."""
    (tmp_path / "callers.toml").write_text(FILE.replace('scopes = ["turns", "sessions"]\n', ""))
    caller = CallersFile.read(tmp_path / "callers.toml").callers[0]

    assert "rollout" not in caller.scopes
    assert [caller.may_use(name) for name in ("demo", "demo2", "acme.example", "acme", "")] == [
        True, False, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("callers = 5", "callers"),
        ("[[callers]]\nname = 'a'", "owner"),
        (FILE.replace(HASH, "secret"), "sha256"),
        (FILE.replace('"turns"', '"everything"'), "scopes"),
        (FILE.replace('"demo", "acme.*"', '"*.acme"'), "workspaces"),
        (FILE.replace('certificates = ["caller"]', 'certificate = "caller"'), "certificate"),
        ("[[callers]]\nname = 'a'\nowner = 'a'\nworkspaces = []", "tokens or certificates"),
        ("not toml", "callers.toml"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str, word: str) -> None:
    """The field is named, and never a token."""
    path = tmp_path / "callers.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=word) as refused:
        CallersFile.read(path)

    assert HASH not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_token_is_made_with_what_declares_it(tmp_path: Path) -> None:
    """The token is shown once; the file has its hash."""
    command = [sys.executable, "-m", "alive_router", "token", "backend", "--owner", "acme", "--workspaces", "acme.*"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    token = next(line for line in shown.splitlines() if line.startswith("alive_"))
    path = tmp_path / "callers.toml"
    path.write_text(shown.replace(token, ""))
    caller = CallersFile.read(path).callers[0]

    assert caller.tokens[0].sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert (caller.name, caller.owner, caller.workspaces) == ("backend", "acme", ("acme.*",))
    assert tomllib.loads(path.read_text())["callers"][0]["scopes"]
