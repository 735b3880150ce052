"""A system whose router knows its callers, as an operator starts it."""

import hashlib
import subprocess
from pathlib import Path

from ..cookbook import code_of
from .conftest import BOUND, CHECKOUT, VENVS, up

LIST = "127.0.0.1:50051 alive.agent.v1.WorkspaceService/ListProviders"
USAGE = "127.0.0.1:50051 alive.agent.v1.WorkspaceService/GetUsage"
FILE = """
[[callers]]
name = "operator"
owner = "acme"
workspaces = ["demo"]
scopes = ["providers", "turns"]
[[callers.tokens]]
sha256 = "{digest}"
"""


def test_only_declared_callers_are_let_in(tmp_path: Path) -> None:
    """It starts, the doctor finds it well with a token and says what is missing without one."""
    token, file = tmp_path / "token", tmp_path / "callers.toml"
    token.write_text("alive_secret\n")
    file.write_text(FILE.format(digest=hashlib.sha256(b"alive_secret").hexdigest()))
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):  # The router's UID reads the file.
            parent.chmod(0o755)
    with up(ALIVE_CALLERS_FILE=str(file), ALIVE_TOKEN_FILE=str(token)) as running:
        nobody = running.grpcurl(LIST)
        known = running.grpcurl(f"-H 'authorization: Bearer alive_secret' {LIST}")
        forbidden = running.grpcurl(f"-H 'authorization: Bearer alive_secret' {USAGE}")
        environment = {"PATH": "/usr/bin:/bin", "ALIVE_STATE_DIR": str(running.state), "ALIVE_LISTEN": running.address}
        command = [str(VENVS / "stack/bin/alive-stack"), "--checkout", str(CHECKOUT), "doctor"]
        said = [
            subprocess.run(command, env=each, capture_output=True, text=True, check=False, timeout=BOUND).stdout
            for each in (environment, {**environment, "ALIVE_TOKEN_FILE": str(token)})
        ]

    assert [code_of(answer.stderr) for answer in (nobody, known, forbidden)] == [
        "Unauthenticated",
        "OK",
        "PermissionDenied",
    ]
    assert "claude" in known.stdout
    assert "set ALIVE_TOKEN_FILE" in said[0]
    assert "lets in the callers of its file" in said[1]
    assert "provider codex is ready" in said[1]
