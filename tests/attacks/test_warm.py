"""What an agent may hope for when its CLI waits for the next turn: to live on, to leave something, to be somebody else."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from alive.agent.v1 import options_pb2
from alive_kit.testing.scripted_model import Reply, RunCommand, Script

from .conftest import Deployment
from .test_attacks import check, read

PROVIDERS = ("claude", "codex")
Row = Callable[..., None]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give each service and workspace a UID of its own"),
    pytest.mark.skipif(not shutil.which("bwrap"), reason="no boxes: apt-get install bubblewrap socat"),
]
each_provider = pytest.mark.parametrize("provider", PROVIDERS)
each_sandbox = pytest.mark.parametrize(
    "sandbox", [options_pb2.SANDBOX_WORKSPACE_WRITE, options_pb2.SANDBOX_FULL_ACCESS], ids=["sandbox", "no sandbox"]
)

_TAKEN_OVER = """
/usr/bin/python3 - <<'END'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        name = open(f"/proc/{pid}/comm").read().strip()
        if name in ("claude", "codex", "socat", "bwrap"):
            with open(f"/proc/{pid}/fd/0", "w"): print("REACHED the input of", name)
            if libc.ptrace(0x4206, int(pid), 0, 0) == 0: print("REACHED", name)
    except OSError: pass
END
"""


def clis(host: Deployment, provider: str) -> set[int]:
    """Return the CLIs that run for the attacker's workspace."""
    return {process for process, name in _agents(host) if name == provider}


def _agents(host: Deployment) -> Iterator[tuple[int, str]]:
    """Yield what runs in the attacker's boxes, by number and name."""
    owner = (host.running.state / "workspaces/attacker.example").stat().st_uid
    for path in Path("/proc").glob("[0-9]*"):
        if f"\nUid:\t{owner}\t".encode() in read(path / "status"):
            yield int(path.name), read(path / "comm").decode().strip()


async def talk(host: Deployment, provider: str, name: str, session_id: str = "") -> tuple[str, str]:
    """Have a turn in which nothing runs; return its session and what the model was sent."""
    marker = await host.model.script(name, Script(replies=[Reply(text="Calm.")]))
    events = await host.caller.run(
        f"{marker} go",
        provider_id=provider,
        workspace_id="attacker.example",
        session_id=session_id,
        permissions=options_pb2.Permissions(sandbox=options_pb2.SANDBOX_FULL_ACCESS),
    )
    assert events[-1].HasField("turn_completed")
    (entry,) = await host.model.journal(name, count=1)
    return events[0].session_id, str(entry.body)


@each_provider
@each_sandbox
async def test_nothing_lives_between_turns(
    host: Deployment, provider: str, sandbox: "options_pb2.Sandbox.ValueType", row: Row
) -> None:
    """A daemon in a session of its own, and whatever the attack could reach of the CLI that waits."""
    row("warm: live on", "leave a daemon, take over the CLI that waits", provider, "one host, tool",
        "a box in which code ran beside its CLI ends with the turn; Codex's sandbox has its own processes")  # fmt: skip
    word = "54331" if provider == "claude" else "54332"
    before = clis(host, provider)
    script = f"{_TAKEN_OVER}\n(trap '' TERM HUP INT; setsid sleep {word} >/dev/null 2>&1 </dev/null &) ; echo TRIED"
    events_of = {"permissions": options_pb2.Permissions(sandbox=sandbox)}
    output, events = await host.command(provider, f"{provider}-live-{sandbox}", script, **events_of)
    waiting = clis(host, provider) - before

    check(output, events)
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if word.encode() in read(path)]
    is_walled = provider == "codex" and sandbox == options_pb2.SANDBOX_WORKSPACE_WRITE
    assert bool(waiting) is is_walled
    assert ("REACHED" in output) is not is_walled


@each_provider
async def test_nothing_is_left_for_the_next_turn(host: Deployment, provider: str, row: Row) -> None:
    """First a turn that leaves the CLI waiting, then one that poisons the home it waits in, then another one."""
    row("warm: poison", "change the home of a CLI that waits for the next turn", provider, "one host, tool",
        "the box ends with a turn in which code ran beside its CLI")  # fmt: skip
    session_id, _ = await talk(host, provider, f"{provider}-warm")
    files = ".bashrc .profile .gitconfig .claude/CLAUDE.md .claude/settings.json .codex/AGENTS.md .codex/hooks.json"
    script = f'cd "$HOME"; mkdir -p .claude .codex; for f in {files}; do echo pelican > $f; done; ls {files}'
    replies = [Reply(actions=[RunCommand(command=script)]), Reply(text="Done.")]
    look = Reply(actions=[RunCommand(command=f'cd "$HOME"; ls {files} 2>/dev/null; echo TRIED')])
    said = []
    for name, played in (("poison", replies), ("look", [look, Reply(text="Done.")])):
        marker = await host.model.script(f"{provider}-warm-{name}", Script(replies=played))
        full = options_pb2.Permissions(sandbox=options_pb2.SANDBOX_FULL_ACCESS)
        asked = {"provider_id": provider, "workspace_id": "attacker.example", "session_id": session_id}
        events = await host.caller.run(f"{marker} go", permissions=full, **asked)
        said.append([e.item_completed.item.command.output for e in events if e.item_completed.item.HasField("command")])

    assert ".bashrc" in said[0][0]
    assert said[1][0].split()[0] == "TRIED"


async def test_a_token_opens_nothing_between_turns(host: Deployment, row: Row) -> None:
    """The token of a CLI that waits, shown at the gateway by somebody who has it."""
    row("warm: token", "use the token of a CLI that waits", "claude", "one host, socket",
        "gateway: ext_authz asks the service, and no turn runs")  # fmt: skip
    before = clis(host, "claude")
    session_id, _ = await talk(host, "claude", "claude-token")
    (waiting,) = clis(host, "claude") - before
    token = re.search(rb"ANTHROPIC_API_KEY=([A-Za-z0-9_-]{43})", read(Path(f"/proc/{waiting}/environ")))
    assert token
    connector = aiohttp.UnixConnector(str(host.running.state / "run/claude-gateway/gateway.sock"))
    async with aiohttp.ClientSession(connector=connector) as http:
        headers = {"x-api-key": token[1].decode()}
        async with http.post("http://gateway/v1/messages", headers=headers, data=b"{}") as answer:
            between = answer.status
    await talk(host, "claude", "claude-token-again", session_id)

    assert between == 401
    assert waiting in clis(host, "claude")
