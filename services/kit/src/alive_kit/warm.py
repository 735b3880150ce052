"""Keeps the agents of sessions up between turns, so that the next turn of a session need not start a CLI.

A warm agent is used again only when everything fixed at its start is equal, and it is ready. Otherwise it is parked:
its CLI is closed, the session is resumed by another one, and nothing is lost. One that nobody needs is parked when it
has waited long enough, is too old, or too many are up.

An agent may also be started ahead of a turn that is expected to be like the session's latest one. It then waits as if
it had served that: in a box of its own, with a token that is not honoured before a turn begins.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from google.protobuf.message import Message

from alive.agent.v1 import agent_service_pb2, options_pb2
from alive_kit.authz import Grants, TurnTokens
from alive_kit.errors import TurnFailure
from alive_kit.provider import Agent, Provider, TurnSpec
from alive_kit.resume import Resume

logger = logging.getLogger(__name__)

SessionKey: TypeAlias = tuple[str, str]
"""Workspace id and session id."""

Servers: TypeAlias = Sequence[options_pb2.McpServer]

Lead: TypeAlias = Callable[[agent_service_pb2.StartTurnRequest, Servers, str], Servers]
"""Has a request's MCP servers find the key gateway, where they show a token."""

KIT_SEES_TO = (
    *("turn_id", "provider_id", "history", "input", "delivery", "validate_only"),
    *("limits.deadline", "limits.idle_timeout", "limits.max_tokens", "limits.max_micro_usd"),
    "limits.workload_class",
    *("permissions.approval_timeout", "tool_context.session_cookie"),
)
"""The fields of a request that no agent ever sees, or that it is told with each turn."""


REMEMBERED, REMEMBERED_BYTES = 1000, 8 << 20
"""Of how many sessions it is known how their latest agent was started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmth:
    """How long agents stay up between turns."""

    idle: float = 900.0
    """Seconds an agent waits for the next turn; 0 means that none does."""
    age: float = 3600.0
    """Seconds after its start until it takes no more turns."""
    agents: int = 24
    """How many may be up before those that wait make room, the longest waiting first; 0 means that none waits."""
    ahead: bool = False
    """Whether one that could not wait is followed by a fresh one for the session's next turn."""


ASKED_SECONDS = 2.0
"""How old what an agent says of itself may be."""

ASKING_STEPS = 3
"""After how many steps of the event loop a question is written: the SDKs take a lock, and write."""


@dataclass(slots=True, kw_only=True)
class _Held:
    """An agent that serves a turn or waits for the next one."""

    agent: Agent
    fixed: bytes
    token: str
    born: float
    expiry: asyncio.TimerHandle | None = None
    asked: "asyncio.Task[bool] | None" = None
    """The question whether it is ready, when it was asked before its turn came."""
    asked_at: float = 0.0

    def ask(self) -> None:
        """Ask it whether it is ready, unless it was asked and has not answered."""
        if self.asked is None or self.asked.done():
            self.asked = asyncio.create_task(self.agent.is_ready())
            self.asked_at = asyncio.get_running_loop().time()

    async def is_ready(self) -> bool:
        """Whether it is, by what it was asked a moment ago, or is asked now."""
        asked, self.asked = self.asked, None
        if asked and asyncio.get_running_loop().time() - self.asked_at < ASKED_SECONDS:
            return await asked
        return await self.agent.is_ready()


class WarmAgents:
    """The agents of a service, at most one for each session."""

    def __init__(self, provider: Provider, warmth: Warmth, tokens: TurnTokens | None, lead: Lead) -> None:
        self.provider_id = provider.provider_id
        self._provider = provider
        self.warmth = warmth
        self._tokens = tokens
        self._lead = lead
        self._serving = 0
        self._waiting: dict[SessionKey, _Held] = {}
        self._honoured: dict[SessionKey, str] = {}
        self._parking: dict[SessionKey, asyncio.Task[None]] = {}
        self._latest: dict[SessionKey, TurnSpec] = {}
        self._latest_bytes = 0
        self._starting: dict[SessionKey, asyncio.Task[None]] = {}

    @property
    def waiting(self) -> Collection[SessionKey]:
        """The sessions whose agents wait, the longest waiting first."""
        return self._waiting.keys()

    def has_waiting(self, workspace_id: str, session_id: str) -> bool:
        """Whether an agent waits for a session's next turn."""
        return (workspace_id, session_id) in self._waiting

    async def ask_ahead(self, workspace_id: str, session_id: str) -> None:
        """Ask the agent that waits for a session whether it is ready: its answer is on its way while a turn is checked.

        Returns once it is asked; at once when none waits.
        """
        if held := self._waiting.get((workspace_id, session_id)):
            held.ask()
            for _ in range(ASKING_STEPS):
                await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def serving(self, spec: TurnSpec, grants: Grants) -> AsyncIterator[Agent]:
        """Have an agent for a turn, the session's warm one where it fits; after the block it waits, or is closed.

        Its token is honoured from here until `end_turn`.

        Raises:
            TurnFailure: it does not start.
        """
        self._serving += 1
        try:
            self._remember(spec)
            held = await self._take(spec, grants) or await self._start(spec, grants)
            is_kept = False
            try:
                yield held.agent
                is_kept = self._may_wait(held, spec) and await held.agent.rest()
            finally:
                if not is_kept:
                    await _end(held)
        finally:
            self._serving -= 1
        if is_kept:
            self._keep(_key(spec), held)

    def end_turn(self, spec: TurnSpec, *, failed: bool) -> None:
        """Honour the agent's token no more; an agent whose turn failed is parked."""
        if self._tokens and (token := self._honoured.pop(_key(spec), None)):
            self._tokens.end(token)
        if failed:
            self._park(_key(spec))

    def start_ahead(self, workspace_id: str, session_id: str, resume: Resume | None) -> None:
        """Have an agent wait for the next turn of an idle session, unless one does or it cannot be foreseen."""
        key = (workspace_id, session_id)
        spec = self._latest.get(key)
        if spec is None or key in self._waiting or key in self._starting or not self._is_wanted(spec):
            return
        # A server over HTTP is greeted when the CLI starts, and no token is honoured between turns.
        if not any(server.HasField("http") for server in spec.mcp_servers):
            task = asyncio.create_task(self._start_ahead(replace(spec, resume=resume)), name=f"start {session_id}")
            self._starting[key] = task
            task.add_done_callback(lambda _: self._starting.pop(key))

    async def park(self, workspace_id: str, session_id: str) -> None:
        """Close the agent that waits for a session; return when it is closed. Nothing when none waits."""
        key = (workspace_id, session_id)
        if task := self._starting.get(key):
            task.cancel()
            await asyncio.wait({task})
        self._park(key)
        await self._parked(key)

    async def close(self) -> None:
        """Park every agent that waits."""
        for task in self._starting.values():
            task.cancel()
        if self._starting:
            await asyncio.wait(self._starting.values())
        for key in list(self._waiting):
            self._park(key)
        if self._parking:
            await asyncio.wait(self._parking.values())

    async def _take(self, spec: TurnSpec, grants: Grants) -> _Held | None:
        key = _key(spec)
        if task := self._starting.get(key):
            await asyncio.wait({task})
        held = self._waiting.get(key)
        if held and held.fixed == self._fixed(spec) and self._age(held) < self.warmth.age:
            self._leave(key)
            self._honour(key, held.token, grants)
            is_ready = False
            try:
                is_ready = await held.is_ready()
            finally:
                if not is_ready:
                    await _end(held)
            if is_ready:
                return held
        await self.park(*key)
        return None

    async def _start(self, spec: TurnSpec, grants: Grants) -> _Held:
        token = self._tokens.issue() if self._tokens else ""
        self._honour(_key(spec), token, grants)
        return await self._start_with(token, spec)

    async def _start_ahead(self, spec: TurnSpec) -> None:
        key, held = _key(spec), None
        self._serving += 1
        try:
            await self._parked(key)
            held = await self._start_with(self._tokens.issue() if self._tokens else "", spec)
            if await held.agent.rest():
                self._keep(key, held)
                held = None
        except TurnFailure as error:
            logger.info("an agent does not start ahead of its turn: %s", error)
        finally:
            self._serving -= 1
            if held:
                await _end(held)

    async def _start_with(self, token: str, spec: TurnSpec) -> _Held:
        self._make_room()
        servers = self._lead(spec.request, spec.mcp_servers, token)
        agent = await self._provider.start(replace(spec, token=token, mcp_servers=servers))
        now = asyncio.get_running_loop().time()
        return _Held(agent=agent, fixed=self._fixed(spec), token=token, born=now)

    def _honour(self, key: SessionKey, token: str, grants: Grants) -> None:
        if self._tokens:
            self._tokens.end(self._honoured.get(key, ""))
            self._honoured[key] = token
            self._tokens.begin(token, grants)

    def _may_wait(self, held: _Held, spec: TurnSpec) -> bool:
        return self._is_wanted(spec) and self._age(held) < self.warmth.age

    def _is_wanted(self, spec: TurnSpec) -> bool:
        """Whether an agent of such turns may wait for another one."""
        return self.warmth.idle > 0 and self.warmth.agents > 0 and not spec.request.ephemeral

    def _remember(self, spec: TurnSpec) -> None:
        """Remember how the session's latest agent was started; not what it was told."""
        request = agent_service_pb2.StartTurnRequest()
        request.CopyFrom(spec.request)
        for path in ("input", "history", "tool_context.session_cookie"):
            _clear(request, path)
        self._forget(_key(spec))
        self._latest[_key(spec)] = replace(spec, request=request)
        self._latest_bytes += request.ByteSize()
        while len(self._latest) > REMEMBERED or self._latest_bytes > REMEMBERED_BYTES:
            self._forget(next(iter(self._latest)))

    def _forget(self, key: SessionKey) -> None:
        if spec := self._latest.pop(key, None):
            self._latest_bytes -= spec.request.ByteSize()

    def _keep(self, key: SessionKey, held: _Held) -> None:
        left = min(self.warmth.idle, self.warmth.age - self._age(held))
        held.expiry = asyncio.get_running_loop().call_later(max(left, 0.0), self._park, key)
        self._waiting[key] = held
        self._make_room()

    def _make_room(self) -> None:
        """Park agents until no more are up than may be, or none waits. A turn is never held up by it."""
        while self._waiting and len(self._waiting) + self._serving > self.warmth.agents:
            self._park(next(iter(self._waiting)))

    def _leave(self, key: SessionKey) -> _Held | None:
        held = self._waiting.pop(key, None)
        if held and held.expiry:
            held.expiry.cancel()
        return held

    def _park(self, key: SessionKey) -> None:
        if held := self._leave(key):
            task = asyncio.create_task(self._close(held, self._parking.get(key)), name=f"park {key[1]}")
            self._parking[key] = task
            task.add_done_callback(lambda done: self._parking.pop(key) if self._parking.get(key) is done else None)

    async def _parked(self, key: SessionKey) -> None:
        """Return when no agent of a session is being closed: two CLIs must not write one session."""
        if task := self._parking.get(key):
            await asyncio.wait({task})

    async def _close(self, held: _Held, before: "asyncio.Task[None] | None") -> None:
        if before:
            await asyncio.wait({before})
        await _end(held)

    def _age(self, held: _Held) -> float:
        return asyncio.get_running_loop().time() - held.born

    def _fixed(self, spec: TurnSpec) -> bytes:
        """Return a hash of all that is fixed when an agent starts: of everything but what is known to change.

        A field that comes new to the contract is fixed, until it is named among those that are not.
        """
        request = agent_service_pb2.StartTurnRequest()
        request.CopyFrom(spec.request)
        request.ClearField("mcp_servers")
        request.mcp_servers.extend(self._lead(spec.request, spec.mcp_servers, ""))
        for path in (*KIT_SEES_TO, *self._provider.per_turn):
            _clear(request, path)
        digest = hashlib.sha256(request.SerializeToString(deterministic=True))
        digest.update(repr((spec.workspace, spec.project_instructions)).encode())
        return digest.digest()


async def _end(held: _Held) -> None:
    """Close an agent. How its turn ended is told already: that it does not close changes nothing of it."""
    try:
        await held.agent.close()
    except Exception:
        logger.exception("an agent does not close")


def _key(spec: TurnSpec) -> SessionKey:
    return spec.request.workspace_id, spec.request.session_id


def _clear(message: Message, path: str) -> None:
    """Clear a field by its path, and leave nothing of a message that has become empty."""
    name, _, rest = path.partition(".")
    if rest and message.HasField(name):
        _clear(getattr(message, name), rest)
    if not rest or not getattr(message, name).ListFields():
        message.ClearField(name)
