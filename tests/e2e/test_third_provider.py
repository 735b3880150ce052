"""A third provider is one new folder; the router, the stack and the contract stay as they are."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import CHECKOUT, VENVS, Running, up

FOLDER = Path(__file__).parent / "third_provider" / "services" / "echo"


@pytest.fixture(scope="module")
def system() -> Iterator[Running]:
    """Return a system whose services folder has one more folder in it."""
    with tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True) as name:
        checkout = Path(name)
        checkout.chmod(0o755)
        shutil.copytree(FOLDER, checkout / "services" / "echo")
        for provider in ("claude", "codex"):
            (checkout / "services" / provider).mkdir()
            shutil.copy(CHECKOUT / "services" / provider / "pyproject.toml", checkout / "services" / provider)
        venvs = checkout / "venvs"
        venvs.mkdir()
        for deployable in ("router", "stack", "gateway", "launcher", "claude", "codex"):
            (venvs / deployable).symlink_to(VENVS / deployable)
        install(checkout / "services" / "echo", venvs / "echo")
        with up(checkout=checkout, venvs=venvs) as running:
            yield running


def install(source: Path, venv: Path) -> None:
    """Make an environment with the provider in it; what it depends on comes from the router's."""
    subprocess.run([os.path.realpath(sys.executable), "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(venv)}))
    needed = Path(sysconfig.get_path("purelib", vars={"base": str(VENVS / "router")}))
    (packages / "echo.pth").write_text(f"{needed}\n{source / 'src'}\n")


def test_a_third_provider_answers_through_the_router(system: Running) -> None:
    """Chosen by the request; it is listed, and the others still answer."""
    start = "127.0.0.1:50051 alive.agent.v1.AgentService/StartTurn"
    request = {"workspace_id": "demo", "provider_id": "echo", "input": [{"text": "Hello, third."}]}
    echo = system.grpcurl(f"-d '{json.dumps(request)}' {start}")
    codex = system.grpcurl(f"-d '{json.dumps({**request, 'provider_id': 'codex'})}' {start}")
    listed = system.grpcurl("127.0.0.1:50051 alive.agent.v1.WorkspaceService/ListProviders")

    assert '"text": "Hello, third."' in echo.stdout
    assert "turn_completed" in echo.stdout
    assert "turn_completed" in codex.stdout
    assert [json.loads(listed.stdout)["providers"][index]["info"]["provider_id"] for index in range(3)] == [
        "claude",
        "codex",
        "echo",
    ]
