"""What holds in containers: who runs as whom, who reaches whom, what is in an image, and which wall stands."""

import json
import re
import shlex
import subprocess
import time

import pytest

from ..cookbook import code_of, recipes
from .conftest import CHECKOUT, DOCKER, Containers, run

START = "alive.agent.v1.AgentService/StartTurn"
LIST = "alive.agent.v1.WorkspaceService/ListProviders"
PROVIDERS = {"claude": 43002, "codex": 43003}
IMAGES = ("router", "edge", "gateway", "stack", "claude", "codex")

pytestmark = pytest.mark.timeout(1800)
each_provider = pytest.mark.parametrize("provider", PROVIDERS)


@each_provider
def test_a_turn_runs_in_containers(containers: Containers, provider: str) -> None:
    """Over mutual TLS, through the gateway, in a box."""
    request = {"workspace_id": "demo", "provider_id": provider, "input": [{"text": "go"}]}
    answer = containers.call(START, json.dumps(request))

    assert "turn_completed" in answer
    assert "SHARED_PROC" in containers.call(LIST)
    path = "/var/lib/alive/workspaces/demo/greeting.py"
    assert "Permission denied" in containers.inside(provider, "cat", path)  # Container root is nobody special.
    as_agent = ("setpriv", "--reuid=45000", "--regid=45000", "--clear-groups", "--")
    assert containers.inside(provider, *as_agent, "stat", "-c", "%u:%g", path).strip() == "45000:43100"


@pytest.mark.parametrize("where", ["address", "edge_address"])
def test_the_cookbook_works_against_it(containers: Containers, where: str) -> None:
    """Every call, with certificates in the place of -plaintext; the page's token is nobody's."""
    for call, code in recipes():
        answer = containers.grpcurl(*shlex.split(call.replace("127.0.0.1:50051", getattr(containers, where))))
        expected = "Unauthenticated" if "authorization: Bearer" in call else code
        assert code_of(answer) == expected, f"{call}\n{answer}"


@each_provider
def test_a_workspace_is_made_beside_the_running_system(containers: Containers, provider: str) -> None:
    """Under a UID of its own, which its agents then have."""
    name = f"{provider}.example"
    containers.compose("run", "--rm", "workspace", name)
    request = {"workspace_id": name, "provider_id": provider, "input": [{"text": "go"}]}
    answer = containers.call(START, json.dumps(request))
    listed = containers.inside(
        provider, "stat", "-c", "%u %n", "/var/lib/alive/workspaces/demo", f"/var/lib/alive/workspaces/{name}"
    )

    assert "turn_completed" in answer
    assert len({line.split()[0] for line in listed.splitlines()}) == 2, listed


def test_nobody_gets_in_without_a_certificate_of_a_caller(containers: Containers) -> None:
    """A provider's is none, and neither is none at all."""
    assert '"providers"' not in containers.call(LIST, holder="claude")
    plain = subprocess.run(
        ["curl", "--silent", "--insecure", f"https://{containers.address}/"],
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert plain.stdout == b""


@pytest.mark.parametrize("service", ["router", "edge", "gateway", "claude", "codex"])
def test_only_the_launcher_is_root(containers: Containers, service: str) -> None:
    """With three capabilities; everything else has a UID of its own and none; nothing can gain any."""
    script = (
        "for p in /proc/[0-9]*; do grep -hE '^(Name|Uid|CapEff|NoNewPrivs)' $p/status | tr '\\n\\t' '  '; echo; done"
    )
    lines = [line.split() for line in containers.inside(service, "sh", "-c", script).splitlines() if line.strip()]
    assert len(lines) > 1
    for words in lines:
        name, uid = words[1], int(words[words.index("Uid:") + 1])
        assert words[words.index("NoNewPrivs:") + 1] == "1", words
        if uid == 0:
            assert service in PROVIDERS, words
            assert words[words.index("CapEff:") + 1] in {"00000000000000e0", "0" * 16}, words
            assert name in {"docker-init", "tini", "python", "python3", "sh"}, words
        else:
            assert words[words.index("CapEff:") + 1] == "0" * 16, words
    uids = {int(words[words.index("Uid:") + 1]) for words in lines}
    assert uids >= {{"router": 43001, "edge": 43006, "gateway": 43005, **PROVIDERS}[service]}


@pytest.mark.parametrize("service", ["router", "edge", "gateway", "claude", "codex"])
def test_the_root_file_system_is_read_only(containers: Containers, service: str) -> None:
    """The system of an image cannot be changed while it runs."""
    assert "Read-only file system" in containers.inside(service, "touch", "/usr/x", "/opt/alive/x")


def test_providers_reach_neither_each_other_nor_the_world(containers: Containers) -> None:
    """By name or by address; the router alone reaches both, and the gateway alone has a way out."""
    address = run(DOCKER, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
                  containers.container("codex")).strip()  # fmt: skip
    for host, port in (("codex", 50051), (address, 50051), ("model", 8099), ("192.0.2.1", 443)):
        assert "reached" not in reach(containers, "claude", host, port)
    assert "reached" in reach(containers, "router", "claude", 50051)
    assert "reached" in reach(containers, "gateway", "model", 8099)


def reach(containers: Containers, service: str, host: str, port: int) -> str:
    """Connect from a container, and return what came of it."""
    script = f"import socket; socket.create_connection(('{host}', {port}), timeout=2); print('rea' + 'ched')"
    python = f"/opt/alive/{service}/bin/python" if service != "gateway" else "python3"
    return containers.inside(service, python, "-c", script)


@each_provider
def test_each_container_has_its_own_secrets_alone(containers: Containers, provider: str) -> None:
    """No key of any vendor is in a provider's container."""
    listed = containers.inside(provider, "ls", "/run/secrets").split()
    everything = containers.inside(
        provider, "sh", "-c", "grep -rls canary- /run /var/lib/alive /opt/alive/entry; env; cat /proc/[0-9]*/environ"
    )

    assert sorted(listed) == sorted([f"{provider}.key", f"{provider}.pem", "router-ca.pem"])
    assert "canary-" not in everything


def test_each_image_has_only_what_its_service_needs(images: None) -> None:
    """The vendors' CLIs, each in its own provider's image; bubblewrap beside a launcher only."""
    look = "find / -xdev ( -iname *codex* -o -iname *claude* -o -name bwrap ) -not -path /proc/*"
    alone = (DOCKER, "run", "--rm", "--user", "0", "--entrypoint", "find")
    found = {name: run(*alone, f"alive-{name}", *look.split()[1:]).lower() for name in IMAGES}

    assert "claude_agent_sdk" in found["claude"]
    assert "codex_cli_bin" in found["codex"]
    for name, text in found.items():
        assert ("claude_agent_sdk" in text) == (name == "claude")
        assert ("codex_cli_bin" in text) == (name == "codex")
        assert ("/usr/bin/bwrap" in text) == (name in PROVIDERS)


def test_no_secret_is_in_an_image(images: None) -> None:
    """Neither in its history nor in its variables; and none runs as root by itself but the launchers'."""
    for name in IMAGES:
        history = run(DOCKER, "history", "--no-trunc", f"alive-{name}")
        settings = json.loads(run(DOCKER, "inspect", "--format", "{{json .Config}}", f"alive-{name}"))
        assert not re.search(r"(?i)api_key=|token=|password|sk-", history + json.dumps(settings["Env"]))
        assert settings["User"] == ("0:0" if name in PROVIDERS else "65534:65534")


def start_alone(provider: str, *options: str, sandbox: str = "require") -> str:
    """Start a provider's container without Compose; return what it said until its readiness was known."""
    words = [DOCKER, "run", "--init", "--read-only", "--network", "none", "--cap-drop", "ALL", "--detach"]
    words += [word for name in ("SETUID", "SETGID", "KILL") for word in ("--cap-add", name)]
    uid = PROVIDERS[provider]
    words += ["--tmpfs", "/tmp", "--tmpfs", f"/run/alive/{provider}-launcher:uid=0,gid={uid},mode=2750"]
    words += ["--tmpfs", f"/run/alive/{provider}:uid={uid},gid={uid},mode=0700"]
    words += ["--tmpfs", f"/run/alive/{provider}-authz:uid={uid},gid={uid},mode=0700"]
    words += ["--tmpfs", f"/var/lib/alive/{provider}:uid={uid},gid={uid},mode=0700"]
    variables = {
        "ALIVE_LISTEN": f"unix:/run/alive/{provider}/agent.sock",
        "ALIVE_WORKSPACES": "/var/lib/alive/workspaces",
        "ALIVE_STATE_DIR": f"/var/lib/alive/{provider}",
        "ALIVE_HOMES": f"/var/lib/alive/homes/{provider}",
        "ALIVE_LAUNCHER": f"/run/alive/{provider}-launcher/launcher.sock",
        "ALIVE_AUTHZ_LISTEN": f"unix:/run/alive/{provider}-authz/authz.sock",
        "ALIVE_SANDBOX": sandbox,
    }
    words += [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    container = run(*words, "--security-opt", "no-new-privileges", *options, f"alive-{provider}").strip()
    try:
        due = time.monotonic() + 40
        said = ""
        while "readiness:" not in said and time.monotonic() < due:
            done = subprocess.run([DOCKER, "logs", container], capture_output=True, text=True, check=True, timeout=20)
            said = done.stdout + done.stderr
            time.sleep(0.2)
        return said
    finally:
        run(DOCKER, "rm", "--force", container)


@each_provider
def test_the_whole_wall_stands_in_a_container(images: None, provider: str) -> None:
    """With the profile that is shipped and an unmasked /proc: ALIVE_SANDBOX=require is satisfied."""
    said = start_alone(
        provider,
        "--security-opt",
        f"seccomp={CHECKOUT}/docker/seccomp.json",
        "--security-opt",
        "systempaths=unconfined",
    )

    assert "'own_uid': True, 'own_proc': True, 'network': False" in said
    assert "readiness: ready" in said


@each_provider
def test_less_than_the_whole_wall_is_refused_where_it_is_required(images: None, provider: str) -> None:
    """With a masked /proc, and with Docker's own profile; the reason names the cure."""
    masked = start_alone(provider, "--security-opt", f"seccomp={CHECKOUT}/docker/seccomp.json")
    none = start_alone(provider)

    assert "readiness: not_ready ALIVE_SANDBOX=require" in masked
    assert "systempaths=unconfined" in masked
    assert "readiness: not_ready the launcher builds no box" in none
