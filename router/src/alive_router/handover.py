"""Gathers what happened in a session at other providers, for the one that takes its next turn.

What is handed over has a bound: the newest is kept whole as far as it fits, long outputs lose their middle, and what
is left out is said in words.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message

from alive.agent.v1 import item_pb2, options_pb2, session_pb2
from alive_kit.rpc import Context
from alive_router.providers import ProviderLinks
from alive_router.relay import Refused, ask
from alive_router.store import SessionTurn

TEXT_BYTES = 8 << 10
"""How much of one text is handed over: an output, a diff, a result."""

MESSAGE_BYTES = 32 << 10
"""How much of one message is handed over."""

_PAGE = 1000
_LEFT_OUT = ("reasoning", "image", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What is said to a provider of what others did."""

    links: ProviderLinks
    bytes: int
    """How much of it."""

    async def gather(
        self, request: session_pb2.ListItemsRequest, turns: Sequence[SessionTurn], context: Context
    ) -> options_pb2.History:
        """Return what happened in some turns of the request's session, bounded.

        Raises:
            ProviderNotReady: a provider that has some of it cannot be reached.
        """
        providers = dict.fromkeys(turn.provider_id for turn in turns)
        found = await asyncio.gather(*(self._items_of(provider_id, request, context) for provider_id in providers))
        by_turn: dict[str, list[item_pb2.Item]] = {}
        for entry in (entry for entries in found for entry in entries):
            by_turn.setdefault(entry.turn_id, []).append(entry.item)
        return bounded([item for turn in turns for item in by_turn.get(turn.turn_id, ())], self.bytes)

    async def _items_of(
        self, provider_id: str, request: session_pb2.ListItemsRequest, context: Context
    ) -> list[session_pb2.SessionItem]:
        """Return the items of a provider; none where it has nothing of the session."""
        try:
            return [entry async for entry in self._pages(provider_id, request, context)]
        except Refused as refused:
            if refused.code is not grpc.StatusCode.NOT_FOUND:
                raise
            return []

    async def _pages(
        self, provider_id: str, request: session_pb2.ListItemsRequest, context: Context
    ) -> AsyncIterator[session_pb2.SessionItem]:
        link = self.links[provider_id]
        asked = session_pb2.ListItemsRequest(
            workspace_id=request.workspace_id, session_id=request.session_id, page_size=_PAGE
        )
        while True:
            page = await ask(link, link.stub.ListItems, asked, context)
            for entry in page.items:
                yield entry
            if not page.next_page_token:
                return
            asked.page_token = page.next_page_token


def bounded(items: Iterable[item_pb2.Item], most: int) -> options_pb2.History:
    """Return the newest items that fit into so many bytes, with what was left out in words."""
    told = [_shortened(item) for item in _told(items)]
    kept: list[item_pb2.Item] = []
    room = most
    for item in reversed(told):
        room -= item.ByteSize()
        if room < 0:
            break
        kept.insert(0, item)
    history = options_pb2.History(items=kept)
    if len(kept) < len(told):
        history.omitted = f"The {len(told) - len(kept)} oldest of {len(told)} entries were left out."
    return history


def _told(items: Iterable[item_pb2.Item]) -> list[item_pb2.Item]:
    """Return the items that matter to another agent: not what a model thought, and of its plans the last."""
    told = [item for item in items if item.WhichOneof("content") not in _LEFT_OUT]
    plans = [item for item in told if item.HasField("plan")]
    return [item for item in told if not item.HasField("plan") or item is plans[-1]]


def _shortened(item: item_pb2.Item) -> item_pb2.Item:
    """Return a copy of an item whose long texts have lost their middle, and which holds no image."""
    copy = item_pb2.Item()
    copy.CopyFrom(item)
    for part in copy.tool_call.result:
        if part.HasField("image"):
            part.image.ClearField("data")
    _shorten(copy, MESSAGE_BYTES if copy.HasField("message") else TEXT_BYTES)
    return copy


def _shorten(message: Message, most: int) -> None:
    """Shorten every text of a message, at any depth."""
    for field, value in message.ListFields():
        if isinstance(value, str):
            setattr(message, field.name, head_and_tail(value, most))
        elif field.message_type is not None:
            for child in value if field.is_repeated else [value]:
                _shorten(child, most)


def head_and_tail(text: str, most: int) -> str:
    """Return a text that is too long without its middle, and say how much is missing."""
    data = text.encode()
    if len(data) <= most:
        return text
    half = most // 2
    head, tail = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
    return f"{head}\n[{len(data) - 2 * half} bytes left out]\n{tail}"
