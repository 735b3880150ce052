"""What operators and callers do: the demo, grpcurl, restarts, wrong settings, another endpoint."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ..cookbook import code_of, recipes
from .conftest import BOUND, CHECKOUT, VENVS, Running, up

START = "127.0.0.1:50051 alive.agent.v1.AgentService/StartTurn"
_NOWHERE = {"ALIVE_LISTEN": "unix:/nowhere", "ALIVE_WORKSPACES": "/proc", "ALIVE_STATE_DIR": "/proc/nowhere"}


def test_the_demo_exits_with_0() -> None:
    """And shows what both agents did."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    command = [str(VENVS / "stack/bin/alive-stack"), "--checkout", str(CHECKOUT), "demo", "--venvs", str(VENVS)]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    assert shown.returncode == 0, shown.stdout + shown.stderr
    tool = "tool alive-workspace/switch_serve_mode"
    for words in ("claude │", "codex │", "+++ b/greeting.py", tool, "tokens in", "Every agent wrote greeting.py."):
        assert words in shown.stdout


@pytest.mark.parametrize("kind", ["system", "edge_system"])
def test_every_line_of_the_cookbook_runs(request: pytest.FixtureRequest, kind: str) -> None:
    """In its order, with an edge and without; each ends with the code that is written below it."""
    system: Running = request.getfixturevalue(kind)
    calls = list(recipes())
    assert len(calls) >= 15
    for call, code in calls:
        answer = system.grpcurl(call)
        assert code_of(answer.stderr) == code, f"{call}\n{answer.stdout}{answer.stderr}"


def test_every_line_that_is_printed_runs(system: Running) -> None:
    """Those that `make up` offers to paste."""
    lines = [line.strip() for line in system.output.splitlines() if line.strip().startswith("grpcurl ")]
    assert len(lines) >= 5
    for line in lines:
        answer = system.grpcurl(line.removeprefix("grpcurl "))
        assert answer.returncode == 0, f"{line}\n{answer.stdout}{answer.stderr}"


def test_an_address_in_use_is_said_at_once(system: Running, tmp_path: Path) -> None:
    """With the cure, before anything is started."""
    environment = {"PATH": "/usr/bin:/bin", "ALIVE_LISTEN": system.address, "ALIVE_STATE_DIR": str(tmp_path)}
    command = [str(VENVS / "stack/bin/alive-stack"), "--checkout", str(CHECKOUT), "up", "--venvs", str(VENVS)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=BOUND)

    assert ended.returncode == 1
    assert "set ALIVE_LISTEN" in ended.stdout


@pytest.mark.parametrize("provider", ["claude", "codex"])
def test_a_killed_service_comes_back(provider: str) -> None:
    """Its process is gone, its clients too; the next turn runs, and the turn before is still there to watch."""
    first = {"workspace_id": "demo", "turn_id": "before", "provider_id": provider, "input": [{"text": "go"}]}
    watch = f"""-d '{json.dumps({"workspace_id": "demo", "turn_id": "before"})}' {START.replace("Start", "Watch")}"""
    with up() as running:
        before = running.grpcurl(f"-d '{json.dumps(first)}' {START}").stdout
        service = running.pid(f"alive_{provider}")
        os.kill(service, signal.SIGKILL)
        request = json.dumps({"workspace_id": "demo", "provider_id": provider, "input": [{"text": "go"}]})
        deadline = time.monotonic() + BOUND
        while "turn_completed" not in (answer := running.grpcurl(f"-d '{request}' {START}")).stdout:
            assert "PROVIDER_NOT_READY" in answer.stderr or "STREAM_LOST" in answer.stderr, answer.stderr
            assert time.monotonic() < deadline
        assert running.pid(f"alive_{provider}") != service
        assert events_of(running.grpcurl(watch).stdout) == events_of(before) != []


def events_of(responses: str) -> list[object]:
    """Return the events of a stream as grpcurl prints it, whatever responses they came in."""
    decoder, events = json.JSONDecoder(), []
    while responses := responses.lstrip():
        response, end = decoder.raw_decode(responses)
        events += response["events"]
        responses = responses[end:]
    return events


def test_a_wrong_key_fails_the_turn_and_no_key_is_not_ready(tmp_path: Path) -> None:
    """An endpoint of the operator's own, with a key that it refuses; the other provider has none."""
    key = tmp_path / "key"
    key.write_text("wrong\n")
    with up() as endpoint:
        url = re.search(r"scripted model at (\S+)", endpoint.output)
        assert url is not None
        variables = {
            "ALIVE_ANTHROPIC_BASE_URL": url[1],
            "ALIVE_ANTHROPIC_API_KEY_FILE": str(key),
            "ALIVE_OPENAI_BASE_URL": f"{url[1]}/v1",
        }
        with up(**variables) as running:
            request = '{"workspace_id": "demo", "provider_id": "%s", "input": [{"text": "go"}]}'
            wrong = running.grpcurl(f"-d '{request % 'claude'}' {START}")
            missing = running.grpcurl(f"-d '{request % 'codex'}' {START}")

    assert "FAILURE_REASON_AUTH" in wrong.stdout
    assert "PROVIDER_NOT_READY" in missing.stderr
    assert "ALIVE_OPENAI_API_KEY_FILE" in missing.stderr


@pytest.mark.parametrize(
    ("service", "module", "variables", "line"),
    [
        ("router", "alive_router", {}, "ALIVE_PROVIDERS: Field required"),
        ("router", "alive_router", {"ALIVE_PROVIDERS": "codex"}, "ALIVE_PROVIDERS: 'codex' is not id=endpoint"),
        ("claude", "alive_claude", {}, "ALIVE_LISTEN: Field required"),
        ("codex", "alive_codex", {"ALIVE_IDLE_SECONDS": "soon"}, "ALIVE_IDLE_SECONDS: "),
        ("codex", "alive_codex", _NOWHERE, "ALIVE_STATE_DIR: /proc/nowhere/turns.sqlite cannot be used"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    service: str, module: str, variables: dict[str, str], line: str
) -> None:
    """The variable is named."""
    command = [str(VENVS / service / "bin/python"), "-m", module]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=BOUND)

    assert ended.returncode == 2
    assert line in ended.stderr
    assert "Traceback" not in ended.stderr
