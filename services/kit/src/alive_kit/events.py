"""Builds the events every provider emits."""

from alive.agent.v1 import event_pb2, item_pb2, usage_pb2


def notice(
    code: str,
    message: str,
    *,
    severity: "event_pb2.Severity.ValueType" = event_pb2.SEVERITY_INFO,
    retry: event_pb2.Retry | None = None,
    **details: str,
) -> event_pb2.Event:
    """Return a notice."""
    return event_pb2.Event(
        notice=event_pb2.Notice(severity=severity, code=code, message=message, retry=retry, details=details)
    )


def unknown_vendor_event(kind: str) -> event_pb2.Event:
    """Return the notice for something of a vendor's that has no place in the contract yet."""
    return notice("unknown_vendor_event", f"The vendor sent something unknown: {kind}.", kind=kind)


def model_retry(message: str, *, attempt: int, max_attempts: int | None, delay_ms: float = 0) -> event_pb2.Event:
    """Return the notice that the vendor's CLI asks its model again."""
    retry = event_pb2.Retry(attempt=attempt, max_attempts=max_attempts)
    retry.delay.FromMilliseconds(round(delay_ms))
    return notice("model_retry", message, severity=event_pb2.SEVERITY_WARNING, retry=retry)


def item_started(item: item_pb2.Item) -> event_pb2.Event:
    """Return the start of an item, in progress from now."""
    item.status = item_pb2.ITEM_STATUS_IN_PROGRESS
    item.start_time.GetCurrentTime()
    return event_pb2.Event(item_started=event_pb2.ItemStarted(item=item))


def item_completed(
    item: item_pb2.Item, status: "item_pb2.ItemStatus.ValueType" = item_pb2.ITEM_STATUS_COMPLETED
) -> event_pb2.Event:
    """Return the end of an item."""
    item.status = status
    return event_pb2.Event(item_completed=event_pb2.ItemCompleted(item=item))


def text_delta(item_id: str, text: str) -> event_pb2.Event:
    """Return text added to a message or to reasoning."""
    return event_pb2.Event(item_delta=event_pb2.ItemDelta(item_id=item_id, text=text))


def usage_updated(usage: usage_pb2.Usage) -> event_pb2.Event:
    """Return what the turn has used so far."""
    return event_pb2.Event(usage_updated=event_pb2.UsageUpdated(usage=usage))
