"""How a turn can end: the one event behind which nothing comes."""

from typing import TypeAlias

from alive.agent.v1 import error_pb2, event_pb2
from alive_kit.failures import turn_error

Terminal: TypeAlias = event_pb2.TurnCompleted | event_pb2.TurnFailed | event_pb2.TurnInterrupted


def failed(reason: "error_pb2.FailureReason.ValueType") -> event_pb2.TurnFailed:
    """Return the end of a turn that failed."""
    return event_pb2.TurnFailed(error=turn_error(reason))


def shutting_down() -> event_pb2.TurnFailed:
    """Return the end of a turn whose service goes down."""
    return failed(error_pb2.FAILURE_REASON_SHUTTING_DOWN)


def event_of(terminal: Terminal) -> event_pb2.Event:
    """Return the event of an end."""
    match terminal:
        case event_pb2.TurnCompleted():
            return event_pb2.Event(turn_completed=terminal)
        case event_pb2.TurnFailed():
            return event_pb2.Event(turn_failed=terminal)
        case event_pb2.TurnInterrupted():
            return event_pb2.Event(turn_interrupted=terminal)
