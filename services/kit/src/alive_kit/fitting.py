"""Makes events fit the size the contract allows.

An item's large content is cut at its end and the bytes left out are counted on the item; a long delta becomes several.
"""

from collections.abc import Iterator

from alive.agent.v1 import event_pb2, item_pb2

EVENT_BYTES = 256 << 10
"""The largest event that is shown."""

_SPARE = 4 << 10
"""Room for everything of an event that is not large content."""


def is_too_large(event: event_pb2.Event) -> bool:
    """Whether an event is larger than the contract allows, its vendor's JSON left out."""
    raw = len(event.raw_json.encode()) if event.raw_json else 0
    return event.ByteSize() - raw + _SPARE > EVENT_BYTES


def fit(event: event_pb2.Event) -> Iterator[event_pb2.Event]:
    """Yield the event, in pieces or cut where it is too large."""
    if event.ByteSize() + _SPARE > EVENT_BYTES:
        event.ClearField("raw_json")
    if event.ByteSize() + _SPARE <= EVENT_BYTES:
        yield event
    elif event.WhichOneof("kind") == "item_delta":
        yield from _pieces(event.item_delta)
    else:
        kind = event.WhichOneof("kind")
        if kind in {"item_started", "item_updated", "item_completed"}:
            _cut(getattr(event, kind).item, event.ByteSize() + _SPARE - EVENT_BYTES)
        yield event


def _pieces(delta: event_pb2.ItemDelta) -> Iterator[event_pb2.Event]:
    field = delta.WhichOneof("delta")
    text: str = getattr(delta, field) if field else ""
    step = (EVENT_BYTES - _SPARE) // 4  # A character has at most four bytes.
    for start in range(0, len(text), step):
        piece = event_pb2.ItemDelta(item_id=delta.item_id)
        setattr(piece, str(field), text[start : start + step])
        yield event_pb2.Event(item_delta=piece)


def _cut(item: item_pb2.Item, excess: int) -> None:
    """Leave out at least so many bytes of an item's content, its last parts first."""
    before = item.ByteSize()
    for holder, name in reversed(list(_large_fields(item))):
        value: str | bytes = getattr(holder, name)
        size = len(value.encode() if isinstance(value, str) else value)
        keep = max(0, size - excess)
        setattr(holder, name, _head(value, keep))
        excess -= size - keep
        if excess <= 0:
            break
    item.omitted_bytes += before - item.ByteSize()


def _head(value: str | bytes, size: int) -> str | bytes:
    """Return the first bytes of a value; an image is whole or nothing."""
    if isinstance(value, bytes):
        return b""
    return value.encode()[:size].decode(errors="ignore")


def _large_fields(item: item_pb2.Item) -> Iterator[tuple[object, str]]:  # noqa: C901  # one line for each kind
    """Yield where an item's content can be large, most important first."""
    match item.WhichOneof("content"):
        case "message":
            yield item.message, "text"
        case "reasoning":
            yield item.reasoning, "text"
        case "command":
            yield from ((item.command, "command"), (item.command, "output"))
        case "file_change":
            yield from ((change, "diff") for change in item.file_change.changes)
        case "tool_call":
            yield item.tool_call, "arguments_json"
            for part in item.tool_call.result:
                yield (part.image, "data") if part.HasField("image") else (part, "text")
            yield item.tool_call, "structured_json"
        case "plan":
            yield item.plan, "text"
        case "subagent":
            yield from ((item.subagent, "description"), (item.subagent, "result"))
        case "image":
            yield item.image.image, "data"
        case "context_compaction":
            yield item.context_compaction, "summary"
