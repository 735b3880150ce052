"""How turns end: interrupted, crashed, and with nothing left behind."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from alive.agent.v1 import agent_service_pb2, error_pb2, event_pb2, item_pb2
from alive_kit.testing.harness import collect
from alive_kit.testing.memory import cycles_stay, kept
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import CallTool, Fault, Reply, RunCommand

from .conftest import Subject, items, said
from .test_mcp import notes

BOUND = 10


def processes(word: str) -> list[int]:
    """Return the processes that have a word among their arguments."""
    return list(_processes(word.encode()))


def _processes(word: bytes) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if word in (entry / "cmdline").read_bytes():
                    yield int(entry.name)
            except OSError:
                continue


@requirement("interrupt:streaming")
async def test_an_interrupt_ends_a_streaming_turn_and_the_session_goes_on(subject: Subject) -> None:
    """The model stalls in its middle."""
    prompt = subject.script("stream", Reply(text="This never ends.", chunk=4, fault=Fault(stall_after=2)))
    call = subject.caller.start(prompt, turn_id=f"{subject.name}-stream")
    events: list[event_pb2.Event] = []
    while not any(event.HasField("item_delta") for event in events):
        events.extend((await call.read()).events)
    async with asyncio.timeout(BOUND):
        result = await subject.caller.interrupt(f"{subject.name}-stream", "enough")
        events += await collect(call)
    again = await subject.caller.run(subject.script("after", Reply(text="Next.")), session_id=events[0].session_id)

    assert result == agent_service_pb2.INTERRUPT_RESULT_INTERRUPTED
    assert events[-1].turn_interrupted.interrupted_by == event_pb2.INTERRUPTED_BY_CALLER
    assert events[-1].turn_interrupted.reason == "enough"
    assert items(events, "message")[-1].status == item_pb2.ITEM_STATUS_INTERRUPTED
    assert said(again) == "Next."


@requirement("interrupt:command")
async def test_an_interrupt_ends_a_running_command(subject: Subject) -> None:
    """The command ignores SIGTERM and SIGINT."""
    word = f"canary-{subject.name}-command"
    command = f"trap '' TERM INT; python3 -c 'import time; time.sleep(300)' {word}"
    prompt = subject.script("long", Reply(actions=[RunCommand(command=command)]), Reply(text="Never."))
    call = subject.caller.start(prompt, turn_id=f"{subject.name}-long")
    async with asyncio.timeout(BOUND):
        while not processes(word):
            await asyncio.sleep(0.01)  # Nothing tells when a command of somebody else's has begun.
    async with asyncio.timeout(BOUND):
        await subject.caller.interrupt(f"{subject.name}-long")
        events = await collect(call)

    assert events[-1].HasField("turn_interrupted")
    assert processes(word) == []


@requirement("interrupt:tool")
async def test_an_interrupt_ends_a_turn_that_waits_for_an_mcp_server(subject: Subject) -> None:
    """The server's process is gone with the turn, and the session goes on."""
    prompt = subject.script("tool", Reply(actions=[CallTool(server="notes", tool="wait")]), Reply(text="Never."))
    turn_id = f"{subject.kind}-tool"
    call = subject.caller.start(prompt, turn_id=turn_id, mcp_servers=[notes(subject)])
    events: list[event_pb2.Event] = []
    while not any(event.item_started.item.HasField("tool_call") for event in events):
        events.extend((await call.read()).events)
    async with asyncio.timeout(BOUND):
        await subject.caller.interrupt(turn_id)
        events += await collect(call)
    again = await subject.caller.run(subject.script("tool-2", Reply(text="Next.")), session_id=events[0].session_id)

    assert events[-1].turn_interrupted.interrupted_by == event_pb2.INTERRUPTED_BY_CALLER
    assert items(events, "tool_call")[-1].status == item_pb2.ITEM_STATUS_INTERRUPTED
    assert processes(str(subject.directory / "bin/notes_server.py")) == []
    assert said(again) == "Next."


@requirement("interrupt:retrying")
async def test_an_interrupt_ends_a_turn_that_waits_to_ask_the_model_again(subject: Subject) -> None:
    """The model says to come back in 20 seconds."""
    fault = Fault(status=429, code="rate_limit_exceeded", headers={"retry-after": "20"})
    turn_id = f"{subject.kind}-retrying"
    call = subject.caller.start(subject.script("retrying", Reply(fault=fault, repeat=9)), turn_id=turn_id)
    events: list[event_pb2.Event] = []
    while not any(event.notice.code == "model_retry" for event in events):
        events.extend((await call.read()).events)
    async with asyncio.timeout(BOUND):
        await subject.caller.interrupt(turn_id)
        events += await collect(call)

    assert events[-1].HasField("turn_interrupted")


@requirement("interrupt:starting")
async def test_an_interrupt_ends_a_turn_whose_agent_is_only_starting(subject: Subject) -> None:
    """What has not started never asks the model; the session takes the next turn."""
    turn_id = f"{subject.kind}-starting"
    call = subject.caller.start(subject.script("starting", Reply(text="Never.")), turn_id=turn_id)
    async with asyncio.timeout(BOUND):
        result = await subject.caller.interrupt(turn_id)
        events = await collect(call)
    again = await subject.caller.run(subject.script("started", Reply(text="Next.")), session_id=events[0].session_id)

    assert result in {agent_service_pb2.INTERRUPT_RESULT_INTERRUPTED, agent_service_pb2.INTERRUPT_RESULT_KEPT}
    assert [event.WhichOneof("kind") for event in events][-1] == "turn_interrupted"
    has_started = any(event.HasField("turn_started") for event in events)  # A quick agent on a busy host.
    assert has_started or subject.bodies("starting") == []
    assert said(again) == "Next."


@requirement("interrupt:stalled")
async def test_an_interrupt_ends_a_turn_whose_model_says_nothing(subject: Subject) -> None:
    """The request is there, and no header comes back."""
    prompt, turn_id = subject.script("mute", Reply(fault=Fault(stall_after=0))), f"{subject.kind}-mute"
    call = subject.caller.start(prompt, turn_id=turn_id)
    await subject.model.arrived(f"{subject.kind}-mute")
    async with asyncio.timeout(BOUND):
        await subject.caller.interrupt(turn_id)
        events = await collect(call)
    again = await subject.caller.run(subject.script("heard", Reply(text="Next.")), session_id=events[0].session_id)

    assert events[-1].turn_interrupted.interrupted_by == event_pb2.INTERRUPTED_BY_CALLER
    assert said(again) == "Next."


@requirement("end:no-process")
async def test_a_daemon_does_not_outlive_its_turn(subject: Subject) -> None:
    """A command forks twice, into a session of its own that ignores every signal."""
    word = f"canary-{subject.name}-daemon"
    daemon = f"trap '' TERM INT HUP; python3 -c 'import time; time.sleep(300)' {word} & sleep 300"
    command = f'setsid sh -c "{daemon}" >/dev/null 2>&1 </dev/null & echo started'
    prompt = subject.script("daemon", Reply(actions=[RunCommand(command=command)]), Reply(text="Left one."))
    events = await subject.caller.run(prompt)

    assert events[-1].HasField("turn_completed")
    assert processes(word) == []


@requirement("turn:parallel")
async def test_many_turns_of_a_new_workspace_run_at_once(subject: Subject) -> None:
    """None of them had the vendor's home made before."""
    subject.workspace("crowd")
    prompt = subject.script("crowd", Reply(actions=[RunCommand(command="true")]), Reply(text="Here."))
    turns = await asyncio.gather(*(subject.caller.run(prompt, workspace_id="crowd") for _ in range(6)))

    assert [events[-1].WhichOneof("kind") for events in turns] == ["turn_completed"] * 6
    assert len({events[0].session_id for events in turns}) == 6


@requirement("end:crash")
async def test_a_killed_cli_fails_its_turn_and_the_session_goes_on(subject: Subject) -> None:
    """The CLI is killed while the model stalls."""
    prompt = subject.script("crash", Reply(text="This is cut.", chunk=4, fault=Fault(stall_after=2)))
    before = set(processes(str(subject.directory))) | set(clis(subject))
    call = subject.caller.start(prompt)
    events: list[event_pb2.Event] = []
    while not any(event.HasField("item_delta") for event in events):
        events.extend((await call.read()).events)
    for process in set(clis(subject)) - before:
        with contextlib.suppress(ProcessLookupError):  # It went with the one before.
            os.kill(process, signal.SIGKILL)
    async with asyncio.timeout(BOUND):
        events += await collect(call)
    again = await subject.caller.run(subject.script("alive", Reply(text="Next.")), session_id=events[0].session_id)

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_CRASHED
    assert items(events, "message")[-1].status == item_pb2.ITEM_STATUS_FAILED
    assert said(again) == "Next."


@requirement("turn:memory")
async def test_an_agent_that_has_ended_leaves_nothing_in_memory(subject: Subject) -> None:
    """Its reader fails when the CLI is gone, and a failure holds what it passed through."""
    if subject.boxed:
        pytest.skip("in a box an agent waits for the next turn")
    (create,) = entry_points(group="alive.providers", name=subject.name)
    package = create.module.removesuffix(".provider")
    prompt = subject.script("memory", *[Reply(text="Done.")] * 4)
    with cycles_stay():
        await subject.caller.run(prompt)
        before = kept(package)
        for _ in range(3):
            assert said(await subject.caller.run(prompt)) == "Done."

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BOUND):
                while kept(package) - before:
                    await asyncio.sleep(0.1)  # Nothing tells when the last reference to something is gone.
        assert not kept(package) - before


def clis(subject: Subject) -> list[int]:
    """Return the processes that carry the marker of an agent, and whose home is below the subject's directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
                if b"ALIVE_AGENT=" in environment and b"HOME=%b/" % bytes(subject.directory) in environment:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
