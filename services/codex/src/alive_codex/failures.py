"""Recognises Codex's errors. As of codex 0.163.0."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
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

_WORDS = (
    ("reason: content_filter", error_pb2.FAILURE_REASON_REFUSED),
    ("stream disconnected", error_pb2.FAILURE_REASON_NETWORK),
)

_STATUS = {"internalServerError": 500}
"""Kinds that stand for one HTTP status without saying it."""

_WAIT = re.compile(r"try again in (\d+(?:\.\d+)?)\s*(ms|s)\b", re.IGNORECASE)
"""How the API says in words when to come again; the CLI does not pass ``retry-after`` on."""

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
        reason, status = _reason_of_message(message)
    wait = wait_of(message)
    return TurnFailure(turn_error(reason, http_status=status, retries=retries, retry_after=wait, stderr=stderr))


def is_cut(error: Mapping[str, Any]) -> bool:
    """Whether an error is that the model's answer reached its longest."""
    return "reason: max_output_tokens" in str(error.get("message", ""))


def of_thread(error: Exception, stderr: str) -> TurnFailure:
    """Return why a thread could not be opened or resumed."""
    if isinstance(error, CodexError):
        reason = next((reason for words, reason in _THREAD_WORDS if words in str(error)), None)
        return failure(reason or error_pb2.FAILURE_REASON_SPAWN, stderr=stderr or str(error))
    return failure(error_pb2.FAILURE_REASON_SPAWN, stderr=stderr or str(error))


def wait_of(message: str) -> timedelta | None:
    """Return how long a message such as ``Please try again in 1.5s`` says to wait."""
    found = _WAIT.search(message)
    if not found:
        return None
    return timedelta(milliseconds=float(found[1])) if found[2].lower() == "ms" else timedelta(seconds=float(found[1]))


def attempt_of(message: str) -> tuple[int, int | None]:
    """Return which attempt of how many a message such as ``Reconnecting... 1/5`` speaks of."""
    found = _ATTEMPT.search(message)
    return (int(found[1]), int(found[2])) if found else (1, None)


def _kind(info: object) -> tuple[str, int | None]:
    """Return the kind of an error and the HTTP status in it."""
    if isinstance(info, str):
        return info, _STATUS.get(info)
    if isinstance(info, dict) and info:
        kind, details = next(iter(info.items()))
        return str(kind), details.get("httpStatusCode") if isinstance(details, dict) else None
    return "", None


def _reason_of_message(message: str) -> tuple["error_pb2.FailureReason.ValueType", int | None]:
    """Return what a message without a kind means: the body of an HTTP 400 is passed on as it came."""
    worded = next((reason for words, reason in _WORDS if words in message), None)
    if worded is not None:
        return worded, None
    try:
        body = json.loads(message)
    except ValueError:
        return error_pb2.FAILURE_REASON_UNKNOWN, None
    details = body.get("error") if isinstance(body, dict) else None
    code = details.get("code") if isinstance(details, dict) else None
    return _CODES.get(str(code), error_pb2.FAILURE_REASON_INVALID_REQUEST), 400
