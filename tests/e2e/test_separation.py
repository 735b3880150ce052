"""Each service runs under its own UID, with its own variables, files and secrets."""

import json
import os
import subprocess
from pathlib import Path

from .conftest import BOUND, CHECKOUT, VENVS, Running, needs_root, up

SERVICES = {
    "alive_router": 43001,
    "alive_claude": 43002,
    "alive_codex": 43003,
    "alive_gateway": 43005,
    "alive_kit.testing.scripted_model": 43009,
}
KEYS = ("gateway/claude", "gateway/codex", "scripted-model/key")


def as_uid(uid: int, *command: str) -> int:
    """Run a command under another UID and return its exit code."""
    setpriv = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--groups", "43100", *command]
    return subprocess.run(setpriv, capture_output=True, check=False, timeout=10).returncode


@needs_root
def test_every_service_has_a_uid_of_its_own_and_no_capability(system: Running) -> None:
    """No privilege can be gained either."""
    for module, uid in SERVICES.items():
        status = Path(f"/proc/{system.pid(module)}/status").read_text()
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in status
        assert f"Gid:\t{uid}" in status
        assert "CapBnd:\t0000000000000000" in status
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status


@needs_root
def test_only_the_edge_comes_by_the_routers_sockets(edge_system: Running) -> None:
    """Under a UID of its own, without a capability; who opens those sockets is believed what it says of callers."""
    status = Path(f"/proc/{edge_system.pid('alive_edge')}/status").read_text()
    assert "Uid:\t43006\t43006\t43006\t43006" in status
    assert "CapBnd:\t0000000000000000" in status
    for name in ("router.sock", "authz.sock"):
        socket = str(edge_system.state / "run/router" / name)
        assert [uid for uid in (*SERVICES.values(), 43006) if as_uid(uid, "test", "-w", socket) == 0] == [43001, 43006]


@needs_root
def test_no_service_sees_the_others_variables(system: Running) -> None:
    """Nor anything of the operator's."""
    seen = {module: Path(f"/proc/{system.pid(module)}/environ").read_bytes() for module in SERVICES}

    assert b"OPENAI" not in seen["alive_claude"]
    assert b"ANTHROPIC" not in seen["alive_codex"]
    assert b"API_KEY" not in seen["alive_router"]
    assert not any(b"HOME=" in variables for variables in seen.values())


@needs_root
def test_each_secret_is_readable_for_its_service_alone(system: Running) -> None:
    """By its owner, and by nobody else."""
    for key in KEYS:
        path = system.state / "secrets" / key
        readers = [uid for uid in SERVICES.values() if as_uid(uid, "cat", str(path)) == 0]
        assert readers == [path.stat().st_uid]
        assert path.stat().st_mode & 0o777 == 0o400


@needs_root
def test_private_directories_and_sockets_are_private(system: Running) -> None:
    """A provider cannot even see another one's socket."""
    for name, uid in (("router", 43001), ("claude", 43002), ("codex", 43003)):
        readers = [reader for reader in SERVICES.values() if as_uid(reader, "ls", str(system.state / name)) == 0]
        assert readers == [uid]
    socket = str(system.state / "run/codex/agent.sock")
    assert as_uid(43002, "test", "-S", socket) != 0
    assert as_uid(43003, "test", "-S", socket) == 0


def test_what_one_agent_writes_the_other_can_change(system: Running) -> None:
    """Through the workspaces' group. The scripted model has both write the same file."""
    for provider in ("claude", "codex", "claude"):
        request = json.dumps({"workspace_id": "demo", "provider_id": provider, "input": [{"text": "go"}]})
        answer = system.grpcurl(f"-d '{request}' 127.0.0.1:50051 alive.agent.v1.AgentService/StartTurn")
        assert "turn_completed" in answer.stdout, answer.stdout + answer.stderr
    written = system.state / "workspaces/demo/greeting.py"

    if os.geteuid() == 0:
        assert written.stat().st_gid == 43100
    assert written.stat().st_mode & 0o060 == 0o060


def test_a_directory_made_by_hand_is_a_workspace(system: Running) -> None:
    """With any umask; the agents may write in it, and in what is in it."""
    workspace = system.state / "workspaces/by-hand.example"
    subprocess.run(["sh", "-c", f"umask 077; mkdir -p {workspace}/sub; echo old > {workspace}/sub/old.txt"], check=True)
    request = json.dumps({"workspace_id": "by-hand.example", "provider_id": "codex", "input": [{"text": "go"}]})
    answer = system.grpcurl(f"-d '{request}' 127.0.0.1:50051 alive.agent.v1.AgentService/StartTurn")

    assert "turn_completed" in answer.stdout
    assert (workspace / "greeting.py").is_file()
    assert (workspace / "sub/old.txt").stat().st_mode & 0o060 == 0o060


@needs_root
def test_a_state_directory_that_nobody_else_can_reach_is_refused(tmp_path: Path) -> None:
    """At once, with the directory that is in the way."""
    tmp_path.chmod(0o700)
    environment = {"PATH": "/usr/bin:/bin", "ALIVE_LISTEN": "127.0.0.1:0", "ALIVE_STATE_DIR": str(tmp_path / "state")}
    command = [str(VENVS / "stack/bin/alive-stack"), "--checkout", str(CHECKOUT), "up", "--venvs", str(VENVS)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=BOUND)

    assert ended.returncode == 1
    assert "cannot enter it" in ended.stdout
    assert "ALIVE_STATE_DIR" in ended.stdout


@needs_root
def test_without_root_it_says_so_and_goes_on() -> None:
    """Everything shares one UID then."""
    prefix = ("setpriv", "--reuid", "45999", "--regid", "45999", "--clear-groups", "--")
    with up(prefix=prefix) as running:
        request = '{"workspace_id": "demo", "input": [{"text": "go"}]}'
        answer = running.grpcurl(f"-d '{request}' 127.0.0.1:50051 alive.agent.v1.AgentService/StartTurn")
        uids = {Path(f"/proc/{running.pid(module)}").stat().st_uid for module in SERVICES}

    assert "Not root" in running.output
    assert "turn_completed" in answer.stdout
    assert uids == {45999}
