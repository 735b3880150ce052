"""Recognises Claude Code's errors. As of Claude Code 2.1.330 and claude-agent-sdk 0.2.187."""

from claude_agent_sdk import CLINotFoundError, ResultMessage

from alive.agent.v1 import error_pb2
from alive_kit.errors import TurnFailure
from alive_kit.failures import failure, reason_of_http_status, turn_error

_SUBTYPES = {
    "error_max_turns": error_pb2.FAILURE_REASON_MAX_TURNS,
    "error_max_budget_usd": error_pb2.FAILURE_REASON_BUDGET,
    "error_max_structured_output_retries": error_pb2.FAILURE_REASON_OUTPUT_INVALID,
}

_WORDS = (
    ("prompt is too long", error_pb2.FAILURE_REASON_CONTEXT_WINDOW),
    ("credit balance", error_pb2.FAILURE_REASON_QUOTA),
    ("not logged in", error_pb2.FAILURE_REASON_AUTH),
    ("invalid api key", error_pb2.FAILURE_REASON_AUTH),
)
"""What the CLI writes where it gives no code."""


def of_result(result: ResultMessage, vendor_error: str, retries: int, stderr: str) -> TurnFailure:
    """Return why a turn failed that the CLI ended with an error."""
    status = result.api_error_status
    text = (result.result or "").lower()
    worded = next((reason for words, reason in _WORDS if words in text), None)
    reason = _SUBTYPES.get(result.subtype) or worded
    if result.stop_reason == "refusal":
        reason = error_pb2.FAILURE_REASON_REFUSED
    if reason is None and status:
        reason = reason_of_http_status(status)
    if reason is None and vendor_error == "server_error":
        reason = error_pb2.FAILURE_REASON_NETWORK  # Without a status the vendor was not reached.
    if reason is None:
        reason = _reason_of_vendor_error(vendor_error)
    return TurnFailure(turn_error(reason, http_status=status, retries=retries, stderr=stderr))


def of_exception(error: Exception, stderr: str, *, started: bool) -> TurnFailure:
    """Return why a turn failed whose CLI did not start, or died."""
    if "No conversation found" in stderr or "No conversation found" in str(error):
        return failure(error_pb2.FAILURE_REASON_SESSION_NOT_FOUND, stderr=stderr)
    if not started and (isinstance(error, CLINotFoundError) or "alive-launch:" in stderr):
        return failure(error_pb2.FAILURE_REASON_SPAWN, stderr=stderr)
    return failure(error_pb2.FAILURE_REASON_CRASHED, stderr=stderr)


def _reason_of_vendor_error(vendor_error: str) -> "error_pb2.FailureReason.ValueType":
    match vendor_error:
        case "authentication_failed":
            return error_pb2.FAILURE_REASON_AUTH
        case "rate_limit":
            return error_pb2.FAILURE_REASON_RATE_LIMIT
        case "billing_error":
            return error_pb2.FAILURE_REASON_QUOTA
        case "model_not_found":
            return error_pb2.FAILURE_REASON_MODEL_UNAVAILABLE
        case "invalid_request":
            return error_pb2.FAILURE_REASON_INVALID_REQUEST
        case _:
            return error_pb2.FAILURE_REASON_UNKNOWN
