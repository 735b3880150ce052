"""Errors: why a call is refused, and why a turn fails.

AgentError                 the gRPC status it becomes
  InvalidField             INVALID_ARGUMENT, with BadRequest
  WorkspaceNotFound        NOT_FOUND
  SessionNotFound          NOT_FOUND
  TurnNotFound             NOT_FOUND
  ItemNotFound             NOT_FOUND
  ApprovalNotFound         NOT_FOUND
  ApprovalClosed           FAILED_PRECONDITION
  TurnEnded                FAILED_PRECONDITION
  ProviderNotFound         NOT_FOUND
  ProviderDisabled         FAILED_PRECONDITION
  ProviderNotChosen        FAILED_PRECONDITION
  ProviderNotReady         UNAVAILABLE, with RetryInfo
  TurnMismatch             ALREADY_EXISTS
  SessionBusy              FAILED_PRECONDITION
  OptionUnsupported        UNIMPLEMENTED
  CallUnsupported          UNIMPLEMENTED
  SeqOutOfRange            OUT_OF_RANGE
  CursorOutOfRange         OUT_OF_RANGE
  ReaderTooSlow            RESOURCE_EXHAUSTED
  AdmissionRefused         RESOURCE_EXHAUSTED, with RetryInfo
  TurnDeclined             UNAVAILABLE
  StreamLost               UNAVAILABLE
  ShuttingDown             UNAVAILABLE, with RetryInfo
  StoreUnavailable         UNAVAILABLE, with RetryInfo
  QuotaExhausted           RESOURCE_EXHAUSTED, with RetryInfo
  ProviderNotRolledOut     FAILED_PRECONDITION
  IdentityMissing          UNAUTHENTICATED
  Forbidden                PERMISSION_DENIED
StorageFailed              no status: the turn ends with a TurnFailed event
TurnFailure                no status: the turn ends with a TurnFailed event
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import ClassVar

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from alive.agent.v1 import error_pb2

DOMAIN = "alive.agent.v1"

_MESSAGE_BYTES, _METADATA_BYTES, _FIELD_BYTES, _VIOLATIONS = 500, 200, 120, 10
"""How much of what a caller sent a status may repeat: gRPC takes no more than 8 KiB of trailers."""


class AgentError(Exception):
    """A call that is refused, with everything a caller needs to act on it."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar["error_pb2.StatusReason.ValueType"] = error_pb2.STATUS_REASON_INTERNAL

    def __init__(self, message: str, *, retry_after: timedelta | None = None, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.metadata = metadata

    def details(self) -> Iterable[Message]:
        """Return what goes into the status beside code and message."""
        metadata = {name: _cut(value, _METADATA_BYTES) for name, value in self.metadata.items()}
        yield error_details_pb2.ErrorInfo(reason=_reason_name(self.reason), domain=DOMAIN, metadata=metadata)
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromTimedelta(self.retry_after)
            yield error_details_pb2.RetryInfo(retry_delay=delay)


class InvalidField(AgentError):
    """Fields of the request are missing or malformed."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = error_pb2.STATUS_REASON_INVALID_FIELD

    def __init__(self, violations: Mapping[str, str]) -> None:
        super().__init__(
            "; ".join(f"{field}: {why}" for field, why in violations.items()), field=next(iter(violations))
        )
        self.violations = violations

    def details(self) -> Iterable[Message]:
        """Return the general details and one BadRequest that names every field, the first ones of very many."""
        yield from super().details()
        bad_request = error_details_pb2.BadRequest()
        for field, why in list(self.violations.items())[:_VIOLATIONS]:
            bad_request.field_violations.add(field=_cut(field, _FIELD_BYTES), description=_cut(why, _METADATA_BYTES))
        yield bad_request


class WorkspaceNotFound(AgentError):
    """The workspace's directory does not exist."""

    code = grpc.StatusCode.NOT_FOUND
    reason = error_pb2.STATUS_REASON_WORKSPACE_NOT_FOUND

    def __init__(self, workspace_id: str) -> None:
        super().__init__(
            f"workspace_id: no workspace {workspace_id!r}: create its directory first",
            field="workspace_id",
            workspace_id=workspace_id,
        )


class SessionNotFound(AgentError):
    """The workspace has no such session."""

    code = grpc.StatusCode.NOT_FOUND
    reason = error_pb2.STATUS_REASON_SESSION_NOT_FOUND

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"session_id: no session {session_id!r} in this workspace: leave it empty to open one",
            field="session_id",
            session_id=session_id,
        )


class TurnNotFound(AgentError):
    """The workspace has no such turn, or it is no longer kept."""

    code = grpc.StatusCode.NOT_FOUND
    reason = error_pb2.STATUS_REASON_TURN_NOT_FOUND

    def __init__(self, turn_id: str) -> None:
        super().__init__(
            f"turn_id: no turn {turn_id!r} in this workspace, or it is no longer kept", field="turn_id", turn_id=turn_id
        )


class ItemNotFound(AgentError):
    """The turn has no such item whose content was cut."""

    code = grpc.StatusCode.NOT_FOUND
    reason = error_pb2.STATUS_REASON_ITEM_NOT_FOUND

    def __init__(self, item_id: str) -> None:
        message = f"The turn has no item {item_id} that was cut: items without omitted_bytes are whole in their events."
        super().__init__(message, item_id=item_id)


class ProviderNotFound(AgentError):
    """No provider has this id."""

    code = grpc.StatusCode.NOT_FOUND
    reason = error_pb2.STATUS_REASON_PROVIDER_NOT_FOUND

    def __init__(self, provider_id: str, known: Iterable[str], *, field: str = "provider_id") -> None:
        super().__init__(
            f"{field}: no provider {provider_id!r}: there is {', '.join(sorted(known)) or 'none'}",
            field=field,
            provider_id=provider_id,
        )


class ProviderDisabled(AgentError):
    """The provider is switched off by the configuration."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = error_pb2.STATUS_REASON_PROVIDER_DISABLED

    def __init__(self, provider_id: str) -> None:
        super().__init__(
            f"provider {provider_id!r} is switched off: choose another, or switch it on in the router's settings",
            provider_id=provider_id,
        )


class ProviderNotChosen(AgentError):
    """Nothing names a provider."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = error_pb2.STATUS_REASON_PROVIDER_NOT_CHOSEN

    def __init__(self) -> None:
        super().__init__(
            "provider_id: nothing names a provider: set it here, on the workspace, or as the router's default"
        )


class ProviderNotReady(AgentError):
    """The provider cannot start turns now."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = error_pb2.STATUS_REASON_PROVIDER_NOT_READY

    def __init__(self, provider_id: str, why: str, *, retry_after: float = 1.0) -> None:
        super().__init__(
            f"provider {provider_id!r} is not ready: {why}",
            retry_after=timedelta(seconds=retry_after),
            provider_id=provider_id,
            why=why,
        )


class TurnMismatch(AgentError):
    """The turn id was used with another request."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = error_pb2.STATUS_REASON_TURN_MISMATCH

    def __init__(self, turn_id: str) -> None:
        super().__init__(
            f"turn_id: {turn_id!r} was used with another request: choose a new one, or repeat the same request",
            field="turn_id",
            turn_id=turn_id,
        )


class SessionBusy(AgentError):
    """A turn of the session is running."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = error_pb2.STATUS_REASON_SESSION_BUSY

    def __init__(self, session_id: str, turn_id: str) -> None:
        super().__init__(
            f"session {session_id!r} is busy with turn {turn_id!r}: wait for it, or interrupt it",
            session_id=session_id,
            turn_id=turn_id,
        )


class OptionUnsupported(AgentError):
    """The provider would not honour an option, so it does not accept it."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = error_pb2.STATUS_REASON_OPTION_UNSUPPORTED

    def __init__(self, provider_id: str, field: str, why: str) -> None:
        super().__init__(
            f"{field}: provider {provider_id!r} does not support it: {why}", field=field, provider_id=provider_id
        )


class CallUnsupported(AgentError):
    """The service does not offer the call."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = error_pb2.STATUS_REASON_CALL_UNSUPPORTED

    def __init__(self, call: str, why: str) -> None:
        super().__init__(f"{call}: {why}", call=call)


class SeqOutOfRange(AgentError):
    """The seq to watch from lies outside what is kept."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = error_pb2.STATUS_REASON_SEQ_OUT_OF_RANGE

    def __init__(self, after_seq: int, *, oldest_seq: int, last_seq: int) -> None:
        super().__init__(
            f"after_seq: {after_seq} is outside what is kept: events {oldest_seq} to {last_seq}",
            field="after_seq",
            oldest_seq=str(oldest_seq),
            last_seq=str(last_seq),
        )


class ReaderTooSlow(AgentError):
    """A reader fell behind what is kept."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = error_pb2.STATUS_REASON_READER_TOO_SLOW

    def __init__(self, last_seq: int) -> None:
        super().__init__(
            f"the reader fell behind what is kept: watch the turn again after_seq {last_seq}", last_seq=str(last_seq)
        )


class AdmissionRefused(AgentError):
    """There is no room for a turn, not even to wait."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = error_pb2.STATUS_REASON_ADMISSION

    def __init__(self, why: str, *, scope: str, retry_after: timedelta) -> None:
        super().__init__(f"no room for the turn: {why}: try again later", retry_after=retry_after, scope=scope)


class TurnDeclined(AgentError):
    """A turn failed before the model said anything, and another provider may take it."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = error_pb2.STATUS_REASON_TURN_DECLINED

    def __init__(self, provider_id: str, error: error_pb2.TurnError) -> None:
        failure = error_pb2.FailureReason.Name(error.reason).removeprefix("FAILURE_REASON_")
        super().__init__(
            f"provider {provider_id!r} could not take the turn ({failure}): {error.message}",
            provider_id=provider_id,
            failure=failure,
        )


class StreamLost(AgentError):
    """The provider's stream broke; the turn may go on."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = error_pb2.STATUS_REASON_STREAM_LOST

    def __init__(self, provider_id: str, turn_id: str) -> None:
        super().__init__(
            f"the stream from provider {provider_id!r} broke: watch turn {turn_id!r} for the rest",
            retry_after=timedelta(seconds=1),
            provider_id=provider_id,
            turn_id=turn_id,
        )


class ShuttingDown(AgentError):
    """The service takes no new turns."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = error_pb2.STATUS_REASON_SHUTTING_DOWN

    def __init__(self) -> None:
        super().__init__("the service is going down: try again soon", retry_after=timedelta(seconds=5))


class CursorOutOfRange(AgentError):
    """A reader of outcomes asks for what is no longer kept."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = error_pb2.STATUS_REASON_CURSOR_OUT_OF_RANGE

    def __init__(self, cursor: str) -> None:
        super().__init__(
            f"after_cursor: {cursor!r} is older than what is kept, or of another store: leave it empty for the oldest",
            field="after_cursor",
        )


class StoreUnavailable(AgentError):
    """What is kept cannot be read or written now."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = error_pb2.STATUS_REASON_STORE_UNAVAILABLE

    def __init__(self, why: str = "the router's database does not answer") -> None:
        super().__init__(f"{why}: try again soon", retry_after=timedelta(seconds=1))


class QuotaExhausted(AgentError):
    """The workspace has used what its limits allow."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = error_pb2.STATUS_REASON_QUOTA_EXHAUSTED

    def __init__(self, workspace_id: str, used: str, period: str, retry_after: timedelta) -> None:
        super().__init__(
            f"workspace {workspace_id!r} has used {used} this {period}: raise settings.usage_limits, or wait until the "
            f"{period} is over",
            retry_after=retry_after,
            workspace_id=workspace_id,
        )


class ProviderNotRolledOut(AgentError):
    """The workspace may not use the provider yet, or not any more."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = error_pb2.STATUS_REASON_PROVIDER_NOT_ROLLED_OUT

    def __init__(self, provider_id: str) -> None:
        super().__init__(
            f"provider {provider_id!r} is not rolled out to this workspace: choose another, see ListProviders",
            provider_id=provider_id,
        )


class IdentityMissing(AgentError):
    """Nobody known calls."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = error_pb2.STATUS_REASON_IDENTITY_MISSING

    def __init__(self) -> None:
        super().__init__("no valid identity came with the call: show a bearer token in 'authorization'")


class Forbidden(AgentError):
    """Whoever calls may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = error_pb2.STATUS_REASON_FORBIDDEN


class ApprovalNotFound(AgentError):
    """The turn asked nothing of this id."""

    code = grpc.StatusCode.NOT_FOUND
    reason = error_pb2.STATUS_REASON_APPROVAL_NOT_FOUND

    def __init__(self, approval_id: str) -> None:
        super().__init__(f"The turn asked nothing with the id {approval_id}.", approval_id=approval_id)


class ApprovalClosed(AgentError):
    """It was answered, timed out, or fell with its turn."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = error_pb2.STATUS_REASON_APPROVAL_CLOSED

    def __init__(self, approval_id: str) -> None:
        message = f"{approval_id} is closed: it was answered, timed out, or its turn ended. See approval_resolved."
        super().__init__(message, approval_id=approval_id)


class TurnEnded(AgentError):
    """Something was meant for a turn that has ended."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = error_pb2.STATUS_REASON_TURN_ENDED

    def __init__(self, turn_id: str) -> None:
        super().__init__(f"Turn {turn_id} has ended.", turn_id=turn_id)


class StorageFailed(Exception):
    """Something cannot be written down."""


class TurnFailure(Exception):
    """A turn that fails; becomes its terminal event."""

    def __init__(self, error: error_pb2.TurnError) -> None:
        super().__init__(error.message)
        self.error = error


def status_of(error: AgentError) -> status_pb2.Status:
    """Return the google.rpc.Status of an error, details included."""
    status = status_pb2.Status(code=_code_number(error.code), message=_cut(error.message, _MESSAGE_BYTES))
    for detail in error.details():  # As Any.Pack does, in a third of the time.
        status.details.add(
            type_url=f"type.googleapis.com/{detail.DESCRIPTOR.full_name}", value=detail.SerializeToString()
        )
    return status


def _cut(text: str, most: int) -> str:
    octets = text.encode()
    return text if len(octets) <= most else octets[:most].decode(errors="ignore") + "…"


def _code_number(code: grpc.StatusCode) -> int:
    number: int = code.value[0]
    return number


def _reason_name(reason: "error_pb2.StatusReason.ValueType") -> str:
    return error_pb2.StatusReason.Name(reason).removeprefix("STATUS_REASON_")
