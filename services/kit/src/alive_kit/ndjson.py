"""Projects events onto the NDJSON lines that Alive's front end reads, whichever provider the events come from.

A pure function of the events and of what the request was: the same ones always give the same lines. Most lines carry a
message of `alive_kit.claude_messages`; the envelope around it, and what else there is, are those of Alive's web API
(``stream_start`` to ``stream_done``). ``stream_ping`` is of the connection, and is left to whoever holds it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from alive.agent.v1 import error_pb2, event_pb2
from alive_kit.claude_messages import ClaudeMessages, Message

_CODES = {
    error_pb2.FAILURE_REASON_AUTH: "API_AUTH_FAILED",
    error_pb2.FAILURE_REASON_QUOTA: "INSUFFICIENT_CREDITS",
    error_pb2.FAILURE_REASON_RATE_LIMIT: "TOO_MANY_REQUESTS",
    error_pb2.FAILURE_REASON_MODEL_UNAVAILABLE: "MODEL_NOT_AVAILABLE",
    error_pb2.FAILURE_REASON_SESSION_CORRUPT: "SESSION_CORRUPT",
    error_pb2.FAILURE_REASON_CRASHED: "STREAM_ERROR",
    error_pb2.FAILURE_REASON_NETWORK: "STREAM_ERROR",
}
"""Alive's code of a failure; ``QUERY_FAILED`` for the others."""

_COMPLETE = frozenset(
    {
        error_pb2.FAILURE_REASON_MAX_TURNS,
        error_pb2.FAILURE_REASON_BUDGET,
        error_pb2.FAILURE_REASON_OUTPUT_INVALID,
    }
)
"""Failures that the front end reads from the result of a stream that is complete."""

_SOURCES = {event_pb2.INTERRUPTED_BY_DISCONNECT: "stream_http_abort"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the front end asked, as far as the lines repeat it."""

    request_id: str
    message: str
    """What the user said."""
    tab_id: str = ""
    host: str = ""
    cwd: str = ""


class NdjsonLines:
    """The lines of one turn."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._messages = ClaudeMessages()
        self._lines = 0
        self._sent = 0

    def project(self, event: event_pb2.Event) -> Iterator[Message]:
        """Yield the lines that an event becomes, as objects; none for many."""
        if event.HasField("turn_queued"):
            queued = event.turn_queued
            yield {"type": "stream_queued", "reason": queued.reason, "position": queued.position}
            return
        for kind, data in self._data(event):
            self._lines += 1
            yield {
                "type": kind,
                "requestId": self._asked.request_id,
                "messageId": f"{self._asked.request_id}-{self._lines}",
                "streamSeq": self._lines,
                "tabId": self._asked.tab_id,
                "timestamp": event.event_time.ToJsonString(),
                "data": data,
            }

    def _data(self, event: event_pb2.Event) -> Iterator[tuple[str, Message]]:
        match event.WhichOneof("kind"):
            case "turn_started":
                yield "stream_start", self._start(is_resume=event.turn_started.resumed)
                yield "stream_session", {"sessionId": event.session_id}
                yield from self._carried(event)
            case "notice":
                if event.notice.severity == event_pb2.SEVERITY_WARNING:
                    warning = {"type": "stream_warning", "code": event.notice.code, "message": event.notice.message}
                    yield "stream_message", self._message(warning)
            case "turn_completed" | "turn_failed" | "turn_interrupted":
                yield from self._end(event)
                yield "stream_done", {}
            case _:
                yield from self._carried(event)

    def _carried(self, event: event_pb2.Event) -> Iterator[tuple[str, Message]]:
        for message in self._messages.project(event):
            yield "stream_message", self._message(message)

    def _start(self, *, is_resume: bool) -> Message:
        asked = self._asked
        return {
            "host": asked.host,
            "cwd": asked.cwd,
            "message": asked.message,
            "messageLength": len(asked.message),
            "isResume": is_resume,
        }

    def _message(self, content: Message) -> Message:
        self._sent += 1
        return {"messageCount": self._sent, "messageType": content["type"], "content": content}

    def _end(self, event: event_pb2.Event) -> Iterator[tuple[str, Message]]:
        *said, result = self._messages.project(event)
        for message in said:
            yield "stream_message", self._message(message)
        if event.HasField("turn_interrupted"):
            interrupted = event.turn_interrupted
            source = _SOURCES.get(interrupted.interrupted_by, "stream_client_cancel")
            yield "stream_interrupt", {"message": interrupted.reason, "source": source, "status": "stopped"}
        elif event.HasField("turn_failed") and event.turn_failed.error.reason not in _COMPLETE:
            yield "stream_error", _error(event.turn_failed.error)
        else:
            turns = {"totalMessages": self._sent, "totalTurns": result["num_turns"]}
            yield "stream_complete", {**turns, "result": result}


def project(asked: Asked, events: Iterable[event_pb2.Event]) -> Iterator[Message]:
    """Yield the lines of a turn's events, from the first on, as objects."""
    lines = NdjsonLines(asked)
    for event in events:
        yield from lines.project(event)


def _error(error: error_pb2.TurnError) -> Message:
    code = _CODES.get(error.reason, "QUERY_FAILED")
    reason = error_pb2.FailureReason.Name(error.reason).removeprefix("FAILURE_REASON_")
    return {"error": code, "code": code, "message": error.message, "details": {"reason": reason}}
