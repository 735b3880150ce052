"""Reads Claude Code's messages without losing any.

The SDK's own reader skips kinds of message and of content that it does not know (0.2.187); here each message comes with
the JSON it was made from, so that nothing is dropped silently.
"""

import json
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from claude_agent_sdk import ClaudeSDKClient, Message
from claude_agent_sdk._internal.message_parser import parse_message

_KNOWN_BLOCKS = frozenset(
    {"text", "thinking", "tool_use", "tool_result", "server_tool_use", "web_search_tool_result", "image"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One message of the CLI."""

    raw: dict[str, Any]
    message: Message | None
    """None where the SDK does not know the kind."""

    @property
    def kind(self) -> str:
        """The message's kind in the vendor's words."""
        return "/".join(str(self.raw[name]) for name in ("type", "subtype") if name in self.raw)

    @property
    def unknown_blocks(self) -> list[str]:
        """Kinds of content the SDK left out."""
        inner = self.raw.get("message")
        content = inner.get("content") if isinstance(inner, dict) else None
        if not isinstance(content, list):
            return []
        return [str(block.get("type")) for block in content if block.get("type") not in _KNOWN_BLOCKS]


async def receive(client: ClaudeSDKClient) -> AsyncIterator[Received]:
    """Yield everything the CLI says, until it ends."""
    if client._query is None:
        raise RuntimeError("the client is not connected")
    async for raw in client._query.receive_messages():
        yield Received(raw=raw, message=parse_message(raw))


def answer_elicitations(
    client: ClaudeSDKClient, elicit: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
) -> None:
    """Have what MCP servers ask the user for answered: the SDK refuses the CLI's request as unknown (0.2.187)."""
    if client._query is None:
        raise RuntimeError("the client is not connected")
    find_query = weakref.ref(client._query)  # It will have the function.
    handle = type(client._query)._handle_control_request

    async def handle_all(request: Any) -> None:
        query = find_query()
        if query is None:
            return
        if request["request"]["subtype"] != "elicitation":
            await handle(query, request)
            return
        answer = await elicit(request["request"])
        response = {"subtype": "success", "request_id": request["request_id"], "response": answer}
        await query.transport.write(json.dumps({"type": "control_response", "response": response}) + "\n")

    client._query._handle_control_request = handle_all
