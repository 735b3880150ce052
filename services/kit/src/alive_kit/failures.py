"""Why turns fail, in the same words for every provider.

A provider recognises its vendor's errors and names the reason; the sentence for the user and whether trying again may
help follow from the reason.
"""

from datetime import timedelta

from alive.agent.v1 import error_pb2
from alive_kit.errors import TurnFailure

STDERR_CHARACTERS = 500
"""How much of what a CLI wrote to stderr is kept."""

_RETRYABLE = frozenset(
    {
        error_pb2.FAILURE_REASON_RATE_LIMIT,
        error_pb2.FAILURE_REASON_OVERLOADED,
        error_pb2.FAILURE_REASON_NETWORK,
        error_pb2.FAILURE_REASON_TIMEOUT,
        error_pb2.FAILURE_REASON_IDLE_TIMEOUT,
        error_pb2.FAILURE_REASON_SPAWN,
        error_pb2.FAILURE_REASON_CRASHED,
        error_pb2.FAILURE_REASON_SHUTTING_DOWN,
        error_pb2.FAILURE_REASON_OUTPUT_INVALID,
        error_pb2.FAILURE_REASON_UNKNOWN,
    }
)

_SENTENCES = {
    error_pb2.FAILURE_REASON_AUTH: "The model's vendor refused the key. The operator must give a valid one.",
    error_pb2.FAILURE_REASON_RATE_LIMIT: "The model's vendor takes no more requests for now. Try again in a while.",
    error_pb2.FAILURE_REASON_QUOTA: "The allowance with the model's vendor is used up. The operator must raise it.",
    error_pb2.FAILURE_REASON_OVERLOADED: "The model's vendor is overloaded. Try again in a while.",
    error_pb2.FAILURE_REASON_NETWORK: "The model's vendor could not be reached, or the connection broke. Try again.",
    error_pb2.FAILURE_REASON_TIMEOUT: "The turn took longer than it may. Allow more time or ask for less.",
    error_pb2.FAILURE_REASON_IDLE_TIMEOUT: "The agent was silent for too long. Try again.",
    error_pb2.FAILURE_REASON_SPAWN: "The agent did not start. Try again; the operator finds the cause in the logs.",
    error_pb2.FAILURE_REASON_CRASHED: "The agent stopped without an answer. Try again.",
    error_pb2.FAILURE_REASON_MCP: "A required MCP server did not start, so the agent was not asked.",
    error_pb2.FAILURE_REASON_MODEL_UNAVAILABLE: "The model does not exist or may not be used. Choose another.",
    error_pb2.FAILURE_REASON_CONTEXT_WINDOW: "The session no longer fits the model. Open a new session.",
    error_pb2.FAILURE_REASON_INVALID_REQUEST: "The model's vendor did not accept the request. Change it and try again.",
    error_pb2.FAILURE_REASON_REFUSED: "The model's vendor does not allow this request.",
    error_pb2.FAILURE_REASON_BUDGET: "The turn used up its budget. Allow more or ask for less.",
    error_pb2.FAILURE_REASON_MAX_TURNS: "The agent reached max_turns without an answer. Allow more or ask for less.",
    error_pb2.FAILURE_REASON_SESSION_NOT_FOUND: "The vendor no longer has the session. Open a new one.",
    error_pb2.FAILURE_REASON_SESSION_CORRUPT: "The vendor cannot read the session. Open a new one.",
    error_pb2.FAILURE_REASON_STORAGE: "Events could not be stored. The operator finds the cause in the logs.",
    error_pb2.FAILURE_REASON_SHUTTING_DOWN: "The service was restarted while the turn ran. Start the turn again.",
    error_pb2.FAILURE_REASON_INTERNAL: "Something went wrong on our side. Try again.",
    error_pb2.FAILURE_REASON_OUTPUT_INVALID: "The agent's answer does not satisfy the output schema. Try again.",
    error_pb2.FAILURE_REASON_UNKNOWN: "The agent failed for an unknown reason. Try again.",
}


def turn_error(
    reason: "error_pb2.FailureReason.ValueType",
    *,
    message: str = "",
    http_status: int | None = None,
    retries: int = 0,
    retry_after: timedelta | None = None,
    stderr: str = "",
) -> error_pb2.TurnError:
    """Return the error of a turn that fails; a message replaces the reason's own sentence."""
    error = error_pb2.TurnError(
        reason=reason,
        message=message or _SENTENCES[reason],
        retryable=reason in _RETRYABLE,
        retries=retries,
        http_status=http_status,
        stderr_tail=stderr[-STDERR_CHARACTERS:],
    )
    if retry_after is not None:
        error.retry_after.FromTimedelta(retry_after)
    return error


def failure(reason: "error_pb2.FailureReason.ValueType", *, message: str = "", stderr: str = "") -> TurnFailure:
    """Return the exception that fails a turn."""
    return TurnFailure(turn_error(reason, message=message, stderr=stderr))


def reason_of_http_status(status: int) -> "error_pb2.FailureReason.ValueType":
    """Return what an HTTP status of a vendor's API means for a turn."""
    match status:
        case 401 | 403:
            return error_pb2.FAILURE_REASON_AUTH
        case 402:
            return error_pb2.FAILURE_REASON_QUOTA
        case 404:
            return error_pb2.FAILURE_REASON_MODEL_UNAVAILABLE
        case 408 | 504:
            return error_pb2.FAILURE_REASON_NETWORK
        case 429:
            return error_pb2.FAILURE_REASON_RATE_LIMIT
        case _ if 400 <= status < 500:
            return error_pb2.FAILURE_REASON_INVALID_REQUEST
        case _ if status >= 500:
            return error_pb2.FAILURE_REASON_OVERLOADED
        case _:
            return error_pb2.FAILURE_REASON_UNKNOWN
