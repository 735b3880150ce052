"""The doctor finds what is wrong, and names the cure."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .conftest import BOUND, CHECKOUT, VENVS, Running, needs_root, up


def doctor(system: Running) -> "subprocess.CompletedProcess[str]":
    """Run the doctor on a system."""
    environment = {"PATH": "/usr/bin:/bin", "ALIVE_STATE_DIR": str(system.state), "ALIVE_LISTEN": system.address}
    command = [str(VENVS / "stack/bin/alive-stack"), "--checkout", str(CHECKOUT), "doctor"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=BOUND)


@needs_root
def test_a_healthy_system_needs_no_cure(system: Running) -> None:
    """Every service, directory, secret and provider is looked at."""
    said = doctor(system)

    assert said.returncode == 0, said.stdout
    for words in ("alive_codex runs under UID 43003", "readable for its owner alone", "provider claude is ready"):
        assert words in said.stdout


@needs_root
def test_another_system_on_the_machine_is_not_its_business(system: Running) -> None:
    """A process that runs one of the modules under any UID, but for other directories."""
    command = [sys.executable, "-c", "input()", "-m", "alive_router", "/elsewhere/state"]
    with subprocess.Popen(command, user=45999, stdin=subprocess.PIPE, env={}) as stranger:
        said = doctor(system)
        stranger.kill()

    assert said.returncode == 0, said.stdout


@needs_root
def test_each_fault_is_found_with_its_cure() -> None:
    """A secret that others can read, a directory that is not private, workspaces that are closed or share a UID."""
    with up() as running:
        (running.state / "secrets/gateway/codex").chmod(0o444)
        (running.state / "claude").chmod(0o755)
        (running.state / "workspaces/closed.example").mkdir(mode=0o700)
        (running.state / "workspaces/closed.example").chmod(0o700)
        os.chown(running.state / "workspaces/closed.example", 45990, 0)
        twin = running.state / "workspaces/twin.example"
        twin.mkdir()
        os.chown(twin, (running.state / "workspaces/demo").stat().st_uid, 43100)
        twin.chmod(0o2770)
        said = doctor(running)

    assert said.returncode == 1
    assert f"chmod 400 {running.state}/secrets/gateway/codex" in said.stdout
    assert f"chmod 700 {running.state}/claude" in said.stdout
    assert "make workspace NAME=closed.example" in said.stdout
    assert "workspaces demo and twin.example share UID" in said.stdout


@needs_root
def test_agents_without_boxes_are_a_finding(tmp_path: Path) -> None:
    """With what to install: bubblewrap is nowhere to be found."""
    (tmp_path / "setpriv").symlink_to(shutil.which("setpriv") or "")
    with up(PATH=str(tmp_path)) as running:
        said = doctor(running)

    assert said.returncode == 1
    assert "behind less than the whole wall: none" in said.stdout
    assert "install bubblewrap" in said.stdout


def test_without_a_system_it_says_what_to_do() -> None:
    """There is nothing to look at."""
    environment = {"PATH": "/usr/bin:/bin", "ALIVE_STATE_DIR": "/nonexistent/state"}
    command = [str(VENVS / "stack/bin/alive-stack"), "--checkout", str(CHECKOUT), "doctor"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=BOUND)

    assert said.returncode == 1
    assert "make up" in said.stdout
