"""What one turn tells: kept within grammar and size, and written down before anybody sees it.

While another provider may still take the turn it is withheld; once the model has said something, the turn begins.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable

from alive.agent.v1 import agent_service_pb2, event_pb2, item_pb2, options_pb2, usage_pb2
from alive_kit.errors import StorageFailed
from alive_kit.event_log import EventLog
from alive_kit.failover import is_output
from alive_kit.grammar import Grammar
from alive_kit.record import Record
from alive_kit.terminals import Terminal, event_of

logger = logging.getLogger(__name__)


class Telling:
    """The events of one turn, on their way into its log."""

    def __init__(
        self,
        request: agent_service_pb2.StartTurnRequest,
        record: Record,
        provider_id: str,
        *,
        lost: Callable[[], None],
        counted: Callable[[usage_pb2.Usage], None],
    ) -> None:
        self.log = EventLog(keep=record.keep, lost=lost)
        self.grammar = Grammar()
        self.withheld: list[event_pb2.Event] = []
        """What was said while another provider may still take the turn."""
        self._request = request
        self._record = record
        self._provider_id = provider_id
        self._counted = counted
        self._held: list[event_pb2.Event] = []
        self._inputs = 0
        self._usage = usage_pb2.Usage()
        self._model = ""

    def tell(self, event: event_pb2.Event) -> None:
        """Take an event of the agent.

        Raises:
            StorageFailed: it cannot be kept.
        """
        if self._record.is_begun:
            self._tell(event)
            return
        self.withheld.append(event)
        if is_output(event):
            self.begin()

    def hold(self, notices: Iterable[event_pb2.Notice]) -> None:
        """Have notices follow the turn's start."""
        self._held.extend(event_pb2.Event(notice=notice) for notice in notices)

    def begin(self) -> None:
        """Begin a turn that no other provider may take any more, and show what was withheld of it.

        Raises:
            StorageFailed: it cannot be kept.
        """
        self._record.begin()
        withheld, self.withheld = self.withheld, []
        for event in withheld:
            self._tell(event)

    def tell_input(self, parts: Iterable[options_pb2.InputPart]) -> None:
        """Say what the user said, so that transcripts are whole.

        Raises:
            StorageFailed: it cannot be kept.
        """
        self._inputs += 1
        item = item_pb2.Item(
            item_id=f"{self._request.turn_id}-input" + (f"-{self._inputs}" if self._inputs > 1 else ""),
            status=item_pb2.ITEM_STATUS_COMPLETED,
            message=item_pb2.MessageItem(
                role=item_pb2.ROLE_USER, text="\n".join(part.text for part in parts if part.text)
            ),
        )
        item.start_time.GetCurrentTime()
        self.tell(event_pb2.Event(item_started=event_pb2.ItemStarted(item=item)))
        self.tell(event_pb2.Event(item_completed=event_pb2.ItemCompleted(item=item)))

    def close_items(self, status: "item_pb2.ItemStatus.ValueType") -> None:
        """Complete the items that are open."""
        for event in self._held:
            logger.warning("event of a turn that never started: %s", event, extra=self._names())
        for event in self.grammar.close_items(status):
            with contextlib.suppress(StorageFailed):
                self._show(event)

    def end(self, terminal: Terminal) -> None:
        """Say how the turn ended, and have it be kept with its session's state and its outcome, as one.

        Raises:
            StorageFailed: it cannot be kept.
        """
        if not terminal.HasField("usage"):
            terminal.usage.CopyFrom(self._usage)
        if isinstance(terminal, event_pb2.TurnFailed) and not self._request.delivery.include_raw:
            terminal.error.ClearField("stderr_tail")
        event = event_of(terminal)
        with self._record.as_one():
            self._append(event, terminal=True)
            self._record.end(event, self._model)

    def close(self) -> None:
        """Count nothing more: what counts has the turn, which has this."""
        self._counted = _ignore

    def _tell(self, event: event_pb2.Event) -> None:
        kind = event.WhichOneof("kind")
        if self.log.is_closed:
            logger.warning("event after the end dropped", extra=self._names(kind=kind))
            return
        if not self.grammar.is_started and kind not in {"turn_started", "turn_queued"}:
            self._held.append(event)  # Vendors warn and retry before they say that they started.
            return
        if kind == "usage_updated":
            self._usage.CopyFrom(event.usage_updated.usage)
            self._counted(self._usage)
        delivery = self._request.delivery
        if not delivery.include_raw:
            event.ClearField("raw_json")
        admitted = self.grammar.admit(event)
        if delivery.HasField("include_deltas") and not delivery.include_deltas and admitted.HasField("item_delta"):
            return
        self._show(admitted)
        if kind == "turn_started":
            self._model = event.turn_started.model
            self._follow_start()

    def _follow_start(self) -> None:
        """Say what was held back, and the user's own message."""
        held, self._held = self._held, []
        for event in held:
            self._tell(event)
        self.tell_input(self._request.input)

    def _show(self, event: event_pb2.Event) -> None:
        event.turn_id = self._request.turn_id
        for piece in self._record.fit(event):
            self._append(piece)

    def _append(self, event: event_pb2.Event, *, terminal: bool = False) -> None:
        event.turn_id = self._request.turn_id
        event.session_id = self._request.session_id
        event.provider_id = self._provider_id
        event.event_time.FromNanoseconds(time.time_ns())
        self.log.append(event, terminal=terminal)
        if event.HasField("item_completed"):
            self.log.settle()  # The transcript never has what the stream has not.

    def _names(self, **more: object) -> dict[str, object]:
        return {"workspace_id": self._request.workspace_id, "turn_id": self._request.turn_id, **more}


def _ignore(_usage: usage_pb2.Usage) -> None:
    """Tell nobody."""
