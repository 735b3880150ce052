"""Each part fails in each phase of a turn: `make drill` runs all of the table, the suite a part of it."""

import asyncio
import contextlib
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from alive.agent.v1 import approval_pb2, error_pb2, event_pb2, options_pb2
from alive_kit.testing.harness import Caller, calling
from alive_kit.testing.postgres import Postgres, running_postgres
from alive_kit.testing.scripted_model import Reply
from alive_kit.testing.scripted_model.control import ModelControl

from ..e2e.conftest import Running, needs_root, up
from .failures import FAILURES
from .phases import PHASES, SERVER, Phase
from .site import Site, follow, is_terminal

ALL = os.environ.get("ALIVE_DRILLS") == "all"
IN_THE_SUITE = {"CLI stopped": "speaking", "MCP server killed": "tool", "disk full": "command"}
"""Where else than in the phase `speaking` the suite has a part fail."""

PROVIDERS = ("claude", "codex")
LIMITS = options_pb2.Limits(deadline=Duration(seconds=25), idle_timeout=Duration(seconds=5))
DISK_BYTES = 32 << 20

ROWS = [
    pytest.param(provider, failure, phase, id=f"{provider}, {failure}, {phase}")
    for failure, row in FAILURES.items()
    for phase in PHASES
    if not row.phases or phase in row.phases
    for provider in PROVIDERS
    if ALL or phase == IN_THE_SUITE.get(failure, "speaking")
]


@dataclass(kw_only=True)
class System:
    """The whole system, with its database."""

    running: Running
    caller: Caller
    model: ModelControl
    database: Postgres

    def site(self, provider: str, number: int) -> Site:
        """Return a fresh workspace."""
        name = f"drill-{number}.example"
        fresh = self.running.state / f".{name}"
        fresh.mkdir()
        (fresh / "drill_server.py").write_text(SERVER)
        fresh.rename(self.running.state / "workspaces" / name)
        return Site(
            running=self.running,
            caller=self.caller,
            model=self.model,
            database=self.database,
            provider=provider,
            workspace_id=name,
        )


@pytest.fixture(scope="module")
async def system() -> AsyncIterator[System]:
    """Return it, with a small disk for each provider's service."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as exits:
        database = exits.enter_context(running_postgres())
        url = database.new_database()
        Path(url.rpartition("=")[2]).chmod(0o755)  # For the router's UID.
        options = {
            "ALIVE_DATABASE_URL": url,
            "ALIVE_WARM_SECONDS": "0",
            "ALIVE_CLAUDE_MAX_RETRIES": "3",
            "ALIVE_CODEX_MAX_RETRIES": "3",
        }
        disks: list[Path] = []
        exits.callback(lambda: [subprocess.run(["umount", "--lazy", str(path)], check=True) for path in disks])

        def prepare(state: Path) -> None:
            disks.extend(state / provider for provider in PROVIDERS)
            for path in disks:
                path.mkdir()
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)], check=True)

        running = await loop.run_in_executor(None, lambda: exits.enter_context(up(prepare=prepare, **options)))
        model = re.search(r"scripted model at (http://\S+)", running.output)
        assert model is not None
        async with calling(running.address, running.state / "workspaces") as caller, ModelControl(model[1]) as control:
            yield System(running=running, caller=caller, model=control, database=database)


@needs_root
@pytest.mark.parametrize(("provider", "failure", "phase"), ROWS)
async def test_a_turn_survives(
    system: System,
    provider: str,
    failure: str,
    phase: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    """It ends once and for the right reason, is kept as it was seen, leaves nothing, and the next one works."""
    site, doing = system.site(provider, request.session.items.index(request.node)), PHASES[phase]
    turn_id, fields = "t", asked(site, doing, has_server=doing.slow_server or phase == "tool")
    call = site.start(await site.script(*doing.replies), turn_id=turn_id, limits=LIMITS, **fields)
    events: list[event_pb2.Event] = []
    reading = asyncio.create_task(follow(call, events))
    await reached(site, doing, events, reading)
    async with FAILURES[failure].cause(site):
        await go_on(site, turn_id, events)
        await reading
        if not (events and is_terminal(events[-1])):
            events += await site.watch(turn_id, events[-1].seq if events else 0)
    replay = await site.watch(turn_id)
    await site.until(lambda: not site.agents())
    prompt = await site.script(Reply(text="The next one."))
    after = await site.run(prompt=prompt, session_id=events[-1].session_id)

    record_property("end", end_of(events))
    assert end_of(events) in FAILURES[failure].ends
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert sum(map(is_terminal, events)) == 1
    assert replay == events
    assert end_of(after) == "completed"


def asked(site: Site, phase: Phase, *, has_server: bool) -> dict[str, object]:
    """Return what a turn is asked beside its prompt."""
    variables = {"SLOW": "yes" if phase.slow_server else "", "WORKSPACE": str(site.workspace)}
    stdio = options_pb2.StdioTransport(command="python3", args=[str(site.workspace / "drill_server.py")], env=variables)
    server = options_pb2.McpServer(
        name="drill", stdio=stdio, startup_timeout=Duration(seconds=4), tool_timeout=Duration(seconds=4)
    )
    detached = options_pb2.Delivery(on_disconnect=options_pb2.ON_DISCONNECT_DETACH)
    return {
        "permissions": phase.permissions,
        "mcp_servers": [server] if has_server else [],
        "delivery": detached,
    }


async def reached(site: Site, phase: Phase, events: list[event_pb2.Event], reading: "asyncio.Task[None]") -> None:
    """Return once a turn does what it is to do when something fails."""
    if phase.is_asked:
        await site.model.journal(site.workspace_id, count=1)
    elif phase.seen:
        await site.until(lambda: any(event.HasField(phase.seen) for event in events) or reading.done())
    else:
        await site.until(lambda: (site.workspace / "seen").exists() or reading.done())
    assert not reading.done(), events


async def go_on(site: Site, turn_id: str, events: list[event_pb2.Event]) -> None:
    """Let a turn go on that waits for somebody."""
    (site.workspace / "go").touch()
    for event in list(events):
        if event.HasField("approval_requested"):
            answer = approval_pb2.ResolveApprovalRequest(
                workspace_id=site.workspace_id,
                turn_id=turn_id,
                approval_id=event.approval_requested.approval_id,
                decision=approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ALLOW_ONCE),
            )
            await site.answer(answer)


def end_of(events: list[event_pb2.Event]) -> str:
    """Return how a turn ended, in a word."""
    last = events[-1]
    if last.HasField("turn_failed"):
        return error_pb2.FailureReason.Name(last.turn_failed.error.reason).removeprefix("FAILURE_REASON_")
    return str(last.WhichOneof("kind")).removeprefix("turn_")
