"""Ends the turns that ran when the service died, and shows turns that ended before it started."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator
from functools import partial

from alive.agent.v1 import agent_service_pb2, error_pb2, event_pb2, item_pb2, usage_pb2
from alive_kit.event_log import EventLog
from alive_kit.failures import turn_error
from alive_kit.fitting import fit
from alive_kit.frames import split
from alive_kit.grammar import TERMINALS, Grammar
from alive_kit.journal import Journal, KeptTurn
from alive_kit.sessions import Sessions

logger = logging.getLogger(__name__)


class EndedTurn:
    """A turn that is only in the journal."""

    def __init__(self, kept: KeptTurn, journal: Journal) -> None:
        self.fingerprint = kept.fingerprint
        self.log = EventLog.ended(journal.frames(kept.turn))
        self.ended = asyncio.Event()
        self.ended.set()

    @contextlib.contextmanager
    def reading(self) -> Iterator[EventLog]:
        """Return the log; nothing depends on who reads it."""
        yield self.log


def end_crashed(journal: Journal, sessions: Sessions, provider_id: str) -> None:
    """Complete the stream of every turn that was cut off: its open items, and then the terminal event."""
    for kept in journal.running():
        logger.warning("a turn was cut off", extra={"workspace_id": kept.workspace_id, "turn_id": kept.turn_id})
        frames = [frame for kept_frames in journal.frames(kept.turn) for frame in split(kept_frames)]
        log = EventLog(keep=partial(journal.append, kept.turn), last_seq=len(frames))
        for event in _ending(frames):
            event.turn_id, event.session_id, event.provider_id = kept.turn_id, kept.session_id, provider_id
            event.event_time.GetCurrentTime()
            if event.HasField("item_completed"):
                session = sessions.find(kept.workspace_id, kept.session_id)
                sessions.add_item(session, kept.turn_id, event.item_completed.item)
            log.append(event)
        log.settle()
        journal.end(kept.turn)


def _ending(frames: Iterable[bytes]) -> Iterator[event_pb2.Event]:
    """Yield what is missing of a stream."""
    grammar, usage = Grammar(), usage_pb2.Usage()
    for frame in frames:
        for event in agent_service_pb2.StartTurnResponse.FromString(frame).events:
            if event.WhichOneof("kind") in TERMINALS:
                return
            grammar.admit(event)
            if event.HasField("usage_updated"):
                usage = event.usage_updated.usage
    for event in grammar.close_items(item_pb2.ITEM_STATUS_FAILED):
        yield from fit(event)
    error = turn_error(error_pb2.FAILURE_REASON_CRASHED)
    yield event_pb2.Event(turn_failed=event_pb2.TurnFailed(error=error, usage=usage))
