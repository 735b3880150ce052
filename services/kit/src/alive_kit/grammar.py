"""Keeps a turn's stream within the grammar of the contract, whatever its provider does.

``queued* (started (item | approval | usage | notice)*)? terminal``: items are started before anything else is said
of them and completed before the terminal event. What breaks the grammar is a defect of a provider: it is replaced by
a notice, so that callers never see it and nothing is dropped silently.
"""

from collections import defaultdict
from collections.abc import Iterator

from alive.agent.v1 import event_pb2, item_pb2

TERMINALS = frozenset({"turn_completed", "turn_failed", "turn_interrupted"})


class Grammar:
    """What has been said of a turn so far, and what may be said next."""

    def __init__(self) -> None:
        self.is_started = False
        self.has_agent_items = False
        self._open: dict[str, _OpenItem] = {}
        self._completed: set[str] = set()

    def admit(self, event: event_pb2.Event) -> event_pb2.Event:
        """Return the event, or the notice that takes its place."""
        objection = self._objection(event)
        if objection:
            return event_pb2.Event(
                notice=event_pb2.Notice(severity=event_pb2.SEVERITY_WARNING, code="stream_defect", message=objection)
            )
        self._follow(event)
        return event

    def close_items(self, status: "item_pb2.ItemStatus.ValueType") -> Iterator[event_pb2.Event]:
        """Yield the completion of every open item, innermost first."""
        for open_item in reversed(list(self._open.values())):
            item = open_item.as_shown()
            item.status = status
            yield event_pb2.Event(item_completed=event_pb2.ItemCompleted(item=item))
        self._completed.update(self._open)
        self._open.clear()

    def _objection(self, event: event_pb2.Event) -> str:
        kind = event.WhichOneof("kind")
        match kind:
            case "turn_started":
                return "the turn had started" if self.is_started else ""
            case "item_started":
                item_id = event.item_started.item.item_id
                return f"item {item_id} had started" if item_id in self._open or item_id in self._completed else ""
            case "item_delta" | "item_retracted":
                return self._unless_open(getattr(event, kind).item_id)
            case "item_updated" | "item_completed":
                return self._unless_open(getattr(event, kind).item.item_id)
            case None:
                return "an event without a kind"
            case _:
                return ""

    def _unless_open(self, item_id: str) -> str:
        return "" if item_id in self._open else f"item {item_id} is not open"

    def _follow(self, event: event_pb2.Event) -> None:
        match event.WhichOneof("kind"):
            case "turn_started":
                self.is_started = True
            case "item_started":
                self._open[event.item_started.item.item_id] = _OpenItem(event.item_started.item)
                self.has_agent_items |= event.item_started.item.message.role != item_pb2.ROLE_USER
            case "item_updated":
                self._open[event.item_updated.item.item_id] = _OpenItem(event.item_updated.item)
            case "item_delta":
                self._open[event.item_delta.item_id].follow(event.item_delta)
            case "item_completed":
                self._open.pop(event.item_completed.item.item_id)
                self._completed.add(event.item_completed.item.item_id)


class _OpenItem:
    """An item as last stated, and the deltas since: an item cut short keeps the text that was shown."""

    def __init__(self, item: item_pb2.Item) -> None:
        self._item = item
        self._texts: defaultdict[str, list[str]] = defaultdict(list)

    def follow(self, delta: event_pb2.ItemDelta) -> None:
        """Keep what a delta adds; not the delta, which would keep its whole event in memory."""
        if field := delta.WhichOneof("delta"):
            self._texts[field].append(getattr(delta, field))

    def as_shown(self) -> item_pb2.Item:
        """Return a copy of the item with its deltas applied."""
        item = item_pb2.Item()
        item.CopyFrom(self._item)
        match item.WhichOneof("content"):
            case "message":
                item.message.text += "".join(self._texts["text"])
            case "reasoning":
                item.reasoning.text += "".join(self._texts["text"])
            case "command":
                item.command.output += "".join(self._texts["output"])
            case "tool_call":
                item.tool_call.arguments_json += "".join(self._texts["arguments_json"])
            case "plan":
                item.plan.text += "".join(self._texts["plan"])
        return item
