"""The agent's one turn: ask the model, do what it says, tell it what came of that, until it has no more to do."""

import asyncio
import sys
from typing import TYPE_CHECKING

import aiohttp

from alive_kit.testing.reference.actions import ASKING, Actions
from alive_kit.testing.reference.memory import Memory
from alive_kit.testing.reference.model import Model
from alive_kit.testing.reference.tools import OWN, exists
from alive_kit.testing.reference.wire import LINE_BYTES, Failed, Json, Wire

if TYPE_CHECKING:
    from alive_kit.testing.reference.servers import Servers

VERSION = "1.0.0"


def main(arguments: list[str]) -> None:
    """Say the version, or run the turn that standard input describes."""
    if arguments == ["--version"]:
        sys.stdout.write(f"reference-agent {VERSION}\n")
        return
    asyncio.run(_serve())


async def _serve() -> None:
    stdin = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    start: Json = await _first(stdin)
    wire = Wire()
    turn = asyncio.create_task(_run(start, wire))
    hearing = asyncio.create_task(wire.hear(stdin, turn))
    await asyncio.wait({turn})
    hearing.cancel()
    if turn.cancelled():
        wire.say(interrupted=True)
    elif isinstance(error := turn.exception(), Failed):
        wire.say(failed=error.error)
    elif error is not None:
        raise error


async def _first(stdin: asyncio.StreamReader) -> Json:
    line = await stdin.readline()
    if not line:
        sys.exit("reference-agent: nobody says what to do")
    return Wire.parse(line)


async def _run(start: Json, wire: Wire) -> None:
    memory = Memory.open(start)
    servers = _servers(start, wire)
    try:
        states = await servers.start(start["servers"]) if servers else []
        _require(start["servers"], states)
        wire.say(ready=True)
        wire.emit("turn_started", {**start["started"], "mcp_servers": states})
        for state in states:
            if state["status"] == "MCP_SERVER_STATUS_FAILED":
                wire.emit("notice", _failed_server(state["name"]))
        offered = [name for name in OWN if exists(name, **start["rules"])] + list(servers.names() if servers else ())
        actions = Actions(wire, servers, start["policy"], start["rules"])
        silence = aiohttp.ClientTimeout(sock_read=start["silence_seconds"])
        async with aiohttp.ClientSession(timeout=silence) as http:
            await _talk(start, wire, memory, Model(start, wire, http, offered), actions)
    finally:
        if servers:
            await servers.stop()


def _servers(start: Json, wire: Wire) -> "Servers | None":
    if not start["servers"]:
        return None
    from alive_kit.testing.reference.servers import Servers  # noqa: PLC0415  # Half a second, where it is needed.

    async def elicit(**asked: object) -> Json:
        return await wire.ask(elicitation=asked) if start["policy"] in ASKING else {"kind": "DECISION_KIND_DENY"}

    return Servers(elicit, start["rules"])


async def _talk(start: Json, wire: Wire, memory: Memory, model: Model, actions: Actions) -> None:
    requests, text = 0, ""
    memory.add({"role": "user", "content": start["input"]})
    wire.say(remember=[memory.session, str(len(memory.messages))])
    while True:
        speech = await model.answer(memory)
        requests += 1
        text = speech.text or text
        memory.add({"role": "agent", "content": [{"text": speech.text}, *({"action": it} for it in speech.actions)]})
        wire.say(remember=[memory.session, str(len(memory.messages))])
        if speech.end["stop"] == "refusal":
            raise Failed("REFUSED")
        added = wire.take_steered()
        if not speech.actions and not added:
            wire.say(completed=_STOPS[speech.end["stop"]])
            return
        if requests == start["max_turns"]:
            if not text:
                raise Failed("MAX_TURNS")
            wire.say(completed="STOP_REASON_MAX_TURNS")
            return
        results = [{"result": await actions.do(action)} for action in speech.actions]
        memory.add({"role": "user", "content": results + added + wire.take_steered()})


_STOPS = {
    "end_turn": "STOP_REASON_END_TURN",
    "max_tokens": "STOP_REASON_MAX_TOKENS",
}


def _require(servers: list[Json], states: list[Json]) -> None:
    failed = {state["name"] for state in states if state["status"] == "MCP_SERVER_STATUS_FAILED"}
    if any(server["required"] and server["name"] in failed for server in servers):
        raise Failed("MCP")


def _failed_server(name: str) -> Json:
    message = f"The MCP server {name} did not start; the turn goes on without its tools."
    fields = {"severity": "SEVERITY_WARNING", "code": "mcp_server_failed", "message": message}
    return {**fields, "details": {"server": name}}
