"""Says until when, and why, another provider may take a turn over."""

from alive.agent.v1 import error_pb2, event_pb2

_CURABLE = frozenset(
    {
        error_pb2.FAILURE_REASON_SPAWN,
        error_pb2.FAILURE_REASON_AUTH,
        error_pb2.FAILURE_REASON_RATE_LIMIT,
        error_pb2.FAILURE_REASON_QUOTA,
        error_pb2.FAILURE_REASON_OVERLOADED,
        error_pb2.FAILURE_REASON_NETWORK,
        error_pb2.FAILURE_REASON_MODEL_UNAVAILABLE,
        error_pb2.FAILURE_REASON_CRASHED,
        error_pb2.FAILURE_REASON_SHUTTING_DOWN,
    }
)
"""Failures that have to do with the provider and not with the turn."""

_BEFORE_OUTPUT = frozenset({"turn_queued", "turn_started", "notice"})


def is_output(event: event_pb2.Event) -> bool:
    """Whether the model has said something, or was paid for it: from then on nobody else can take the turn."""
    if event.HasField("usage_updated"):
        usage = event.usage_updated.usage
        return bool(usage.input_tokens or usage.output_tokens)
    return event.WhichOneof("kind") not in _BEFORE_OUTPUT


def is_curable(reason: "error_pb2.FailureReason.ValueType") -> bool:
    """Whether a turn that failed for this reason may succeed with another provider."""
    return reason in _CURABLE
