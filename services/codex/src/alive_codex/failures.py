"""Recognises Codex's errors. As of codex 0.163.0."""

import json
import re
from collections.abc import Mapping
from typing import Any

from openai_codex.errors import CodexError

from alive.agent.v1 import error_pb2
from alive_kit.errors import TurnFailure
from alive_kit.failures import failure, reason_of_http_status, turn_error

_KINDS = {
    "contextWindowExceeded": error_pb2.FAILURE_REASON_CONTEXT_WINDOW,
    "usageLimitExceeded": error_pb2.FAILURE_REASON_QUOTA,
    "rateLimitExceeded": error_pb2.FAILURE_REASON_RATE_LIMIT,
    "serverOverloaded": error_pb2.FAILURE_REASON_OVERLOADED,
    "internalServerError": error_pb2.FAILURE_REASON_OVERLOADED,
    "cyberPolicy": error_pb2.FAILURE_REASON_REFUSED,
    "unauthorized": error_pb2.FAILURE_REASON_AUTH,
    "badRequest": error_pb2.FAILURE_REASON_INVALID_REQUEST,
}

_CODES = {
    "model_not_found": error_pb2.FAILURE_REASON_MODEL_UNAVAILABLE,
    "context_length_exceeded": error_pb2.FAILURE_REASON_CONTEXT_WINDOW,
    "insufficient_quota": error_pb2.FAILURE_REASON_QUOTA,
    "invalid_api_key": error_pb2.FAILURE_REASON_AUTH,
}
"""The API's codes, in the body of an HTTP 400 that Codex passes on as its message."""

_THREAD_WORDS = (
    ("required MCP servers failed", error_pb2.FAILURE_REASON_MCP),
    ("no rollout found", error_pb2.FAILURE_REASON_SESSION_NOT_FOUND),
    ("thread not found", error_pb2.FAILURE_REASON_SESSION_NOT_FOUND),
    ("failed to parse", error_pb2.FAILURE_REASON_SESSION_CORRUPT),
    ("failed to read", error_pb2.FAILURE_REASON_SESSION_CORRUPT),
)

_ATTEMPT = re.compile(r"(\d+)/(\d+)")


def of_turn(error: Mapping[str, Any], retries: int, stderr: str) -> TurnFailure:
    """Return why a turn failed that Codex ended with an error."""
    kind, status = _kind(error.get("codexErrorInfo"))
    message = str(error.get("message", ""))
    reason = _KINDS.get(kind)
    if reason is None and status:
        reason = reason_of_http_status(status)
    if reason is None and kind in {
        "httpConnectionFailed",
        "responseStreamDisconnected",
        "responseTooManyFailedAttempts",
    }:
        reason = error_pb2.FAILURE_REASON_NETWORK
    if reason is None:
        reason = _reason_of_message(message)
    return TurnFailure(turn_error(reason, http_status=status, retries=retries, stderr=stderr))


def of_thread(error: Exception, stderr: str) -> TurnFailure:
    """Return why a thread could not be opened or resumed."""
    if isinstance(error, CodexError):
        reason = next((reason for words, reason in _THREAD_WORDS if words in str(error)), None)
        return failure(reason or error_pb2.FAILURE_REASON_SPAWN, stderr=stderr or str(error))
    return failure(error_pb2.FAILURE_REASON_SPAWN, stderr=stderr or str(error))


def attempt_of(message: str) -> tuple[int, int | None]:
    """Return which attempt of how many a message such as ``Reconnecting... 1/5`` speaks of."""
    found = _ATTEMPT.search(message)
    return (int(found[1]), int(found[2])) if found else (1, None)


def _kind(info: object) -> tuple[str, int | None]:
    """Return the kind of an error and the HTTP status in it."""
    if isinstance(info, str):
        return info, None
    if isinstance(info, dict) and info:
        kind, details = next(iter(info.items()))
        return str(kind), details.get("httpStatusCode") if isinstance(details, dict) else None
    return "", None


def _reason_of_message(message: str) -> "error_pb2.FailureReason.ValueType":
    if "stream disconnected" in message:
        return error_pb2.FAILURE_REASON_NETWORK
    try:
        body = json.loads(message)
    except ValueError:
        return error_pb2.FAILURE_REASON_UNKNOWN
    details = body.get("error") if isinstance(body, dict) else None
    code = details.get("code") if isinstance(details, dict) else None
    return _CODES.get(str(code), error_pb2.FAILURE_REASON_INVALID_REQUEST)
