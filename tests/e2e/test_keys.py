"""The vendors' keys are in one place: the key gateway. Services and agents hold tokens that end with their turn."""

import json
import re
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from .conftest import Running, needs_root, up

START = "127.0.0.1:50051 alive.agent.v1.AgentService/StartTurn"
PROVIDERS = {"claude": ("alive_claude", 43002), "codex": ("alive_codex", 43003)}
LEAK = {
    "replies": [
        {"actions": [{"kind": "run_command", "command": "cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; env"}]},
        {"text": "Looked."},
    ],
    "loop": True,
}


class Vendor(BaseHTTPRequestHandler):
    """Answers every request with an error, and keeps the keys it was shown."""

    shown: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.shown.append(self.headers.get("x-api-key") or self.headers.get("authorization") or "")
        self.send_response(401)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Return a system whose model has the agents look for keys."""
    script = Path("/tmp") / f"{tmp_path_factory.getbasetemp().name}-leak.json"
    script.write_text(json.dumps(LEAK))
    try:
        with up(arguments=("--script", str(script))) as running:
            yield running
    finally:
        script.unlink()


def run(system: Running, provider: str, turn_id: str) -> list[dict[str, object]]:
    """Run a turn and return its events."""
    request = {"workspace_id": "demo", "provider_id": provider, "turn_id": turn_id, "input": [{"text": "go"}]}
    answer = system.grpcurl(f"-d '{json.dumps(request)}' {START}")
    decoder, events, text = json.JSONDecoder(), [], answer.stdout.strip()
    while text:
        response, end = decoder.raw_decode(text)
        events += response["events"]
        text = text[end:].strip()
    return events


def port_of(system: Running, provider: str) -> int:
    """Return the port at which the gateway listens for a provider."""
    routes = re.search(
        rb"ALIVE_GATEWAY_ROUTES=([^\0]+)", Path(f"/proc/{system.pid('alive_gateway')}/environ").read_bytes()
    )
    assert routes is not None
    return next(route["port"] for route in json.loads(routes[1]) if route["name"] == provider)


def post(url: str, headers: dict[str, str]) -> int:
    """Send a request to the gateway and return the status it answers with."""
    request = urllib.request.Request(url, data=b"{}", headers=headers, method="POST")
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


@needs_root
@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_agent_finds_no_key_and_its_token_is_spent(system: Running, provider: str) -> None:
    """Its command reads every environment it can, and its own."""
    key = (system.state / "secrets/scripted-model/key").read_text().strip()
    events = run(system, provider, f"leak-{provider}")
    shown = json.dumps(events)
    tokens = set(re.findall(r"ANTHROPIC_API_KEY=([A-Za-z0-9_-]{43})", shown))

    assert "turn_completed" in events[-1]
    assert "HOME=" in shown
    assert key not in shown
    for path, header in (("/v1/messages", "x-api-key"), ("/responses", "authorization")):
        for token in tokens:
            assert post(f"http://127.0.0.1:{port_of(system, provider)}{path}", {header: token}) in {401, 404}
    assert provider == "codex" or tokens


@needs_root
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_service_holds_no_key_and_cannot_read_it(system: Running, provider: str) -> None:
    """Neither in its variables nor on disk."""
    module, uid = PROVIDERS[provider]
    key = system.state / "secrets/gateway" / provider
    environment = Path(f"/proc/{system.pid(module)}/environ").read_bytes()
    reading = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--groups", "43100", "cat", str(key)]
    read = subprocess.run(reading, capture_output=True, check=False, timeout=10)
    found = subprocess.run(
        ["grep", "-rl", key.read_text().strip(), str(system.state / provider)],
        capture_output=True,
        check=False,
        timeout=30,
    )

    assert b"API_KEY" not in environment
    assert read.returncode != 0
    assert found.stdout == b""


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_gateway_passes_nothing_without_a_token(system: Running, provider: str) -> None:
    """No token, a wrong one, another path."""
    url = f"http://127.0.0.1:{port_of(system, provider)}"
    path = "/v1/messages" if provider == "claude" else "/responses"

    assert post(url + path, {}) == 401
    assert post(url + path, {"x-api-key": "x" * 43, "authorization": "Bearer " + "x" * 43}) == 401
    assert post(url + "/v1/files", {}) in {401, 404}
    assert post(url + path + "/..%2f..%2fadmin", {}) == 400


def test_the_key_is_in_no_log(system: Running) -> None:
    """Of any service, the gateway's own included."""
    key = (system.state / "secrets/scripted-model/key").read_text().strip()
    logs = "".join(path.read_text() for path in (system.state / "logs").glob("*.log"))

    assert '"provider":"' in logs
    assert key not in logs


def test_a_key_is_replaced_without_a_restart(tmp_path: Path) -> None:
    """The operator writes another one into the file; the next turn's requests carry it."""
    key = tmp_path / "key"
    key.write_text("first-key\n")
    vendor = ThreadingHTTPServer(("127.0.0.1", 0), Vendor)
    threading.Thread(target=vendor.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{vendor.server_port}"
    variables = {
        "ALIVE_ANTHROPIC_BASE_URL": f"{url}/base",
        "ALIVE_ANTHROPIC_API_KEY_FILE": str(key),
        "ALIVE_OPENAI_BASE_URL": f"{url}/v1",
        "ALIVE_OPENAI_API_KEY_FILE": str(key),
    }
    try:
        with up(**variables) as running:
            events = run(running, "claude", "one") + run(running, "codex", "one-more")
            before = set(Vendor.shown)
            key.write_text("second-key\n")
            turn = 0
            while "second-key" not in Vendor.shown and turn < 20:
                turn += 1
                run(running, "claude", f"two-{turn}")
    finally:
        vendor.shutdown()
        vendor.server_close()

    assert json.dumps(events).count("FAILURE_REASON_AUTH") == 2
    assert before == {"first-key", "Bearer first-key"}
    assert "second-key" in Vendor.shown
