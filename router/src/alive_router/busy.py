"""Tells whether a session is busy at the provider that has it, before it moves to another one."""

import asyncio
from dataclasses import dataclass, field

from alive.agent.v1 import session_pb2
from alive_kit.errors import ProviderNotReady, SessionBusy, StreamLost
from alive_kit.rpc import Context
from alive_router.plan import Plan
from alive_router.providers import ProviderLinks
from alive_router.relay import Refused, ask
from alive_router.store import TurnRow

ARRIVAL_SECONDS = 1.0
"""After what time a turn that was led past this router has reached its provider, or was refused there."""

_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """The turns of sessions that this router knows to run, or to be on their way."""

    links: ProviderLinks
    _running: dict[tuple[str, str], TurnRow] = field(default_factory=dict)
    """Those whose callers are here."""
    _led: dict[tuple[str, str], TurnRow] = field(default_factory=dict)
    """Those that were led past here a moment ago."""

    def begin(self, turn: TurnRow) -> None:
        """Take note that a turn runs, until it is said that it has ended."""
        self._running.setdefault(_session(turn), turn)

    def end(self, turn: TurnRow) -> None:
        """Take note that a turn's caller is gone."""
        if self._running.get(_session(turn)) is turn:
            del self._running[_session(turn)]

    def lead(self, turn: TurnRow) -> None:
        """Take note that a turn is on its way to its provider."""
        self._led[_session(turn)] = turn
        asyncio.get_running_loop().call_later(ARRIVAL_SECONDS, self._arrived, turn)

    async def check(self, plan: Plan, context: Context) -> None:
        """Refuse a turn of a session that is busy elsewhere: where it goes to, the provider itself sees to it.

        Raises:
            SessionBusy: it is.
        """
        if not plan.before or plan.before == plan.turn.provider_id:
            return
        key = _session(plan.turn)
        if running := self._running.get(key):
            raise SessionBusy(plan.turn.session_id, running.turn_id)
        latest = await self._latest(plan, context)
        while (led := self._led.get(key)) and latest != led.turn_id:
            await asyncio.sleep(_LOOK_SECONDS)
            latest = await self._latest(plan, context)

    async def _latest(self, plan: Plan, context: Context) -> str:
        """Return the latest turn that the session's provider knows of; empty where it knows nothing, or is away."""
        link = self.links[plan.before]
        asked = session_pb2.GetSessionRequest(workspace_id=plan.turn.workspace_id, session_id=plan.turn.session_id)
        try:
            session = (await ask(link, link.stub.GetSession, asked, context)).session
        except (ProviderNotReady, StreamLost, Refused):
            return ""  # What ran there has died with it, or nothing ever did.
        if session.state == session_pb2.SESSION_STATE_RUNNING:
            raise SessionBusy(plan.turn.session_id, session.last_turn_id)
        return session.last_turn_id

    def _arrived(self, turn: TurnRow) -> None:
        if self._led.get(_session(turn)) is turn:
            del self._led[_session(turn)]


def _session(turn: TurnRow) -> tuple[str, str]:
    return turn.workspace_id, turn.session_id
