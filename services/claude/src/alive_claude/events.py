"""Translates Claude Code's messages into events: one small function for each kind of message.

A block of an answer is streamed first and stated whole afterwards, still before its stream says that it has stopped
(Claude Code 2.1.330). What was streamed but never stated belongs to an attempt that the CLI abandoned.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from claude_agent_sdk import (
    AssistantMessage,
    ConversationResetMessage,
    RateLimitEvent,
    ResultMessage,
    ServerToolResultBlock,
    ServerToolUseBlock,
    StreamEvent,
    SystemMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from alive.agent.v1 import event_pb2, item_pb2
from alive_claude.items import complete, is_plain_tool, tool_item
from alive_claude.messages import Received
from alive_claude.system import begun, changed, translate_system
from alive_claude.usage import ClaudeTally
from alive_kit.events import (
    item_completed,
    item_started,
    model_retry,
    notice,
    text_delta,
    unknown_vendor_event,
    usage_updated,
)
from alive_kit.provider import TurnSpec

Events = Iterator[event_pb2.Event]

_INTERRUPTED = item_pb2.ITEM_STATUS_INTERRUPTED


@dataclass(slots=True, kw_only=True)
class _Answer:
    """An answer of the model while it is streamed; subagents have their own beside the agent's."""

    message_id: str
    model: str
    blocks: int = 0
    is_ended: bool = False
    """Whether everything of it was said, its tokens included."""
    open: item_pb2.Item | None = None
    """The block that is streamed now and not stated yet."""


class Translator:
    """The translation of one turn."""

    def __init__(self, spec: TurnSpec, denied: set[str]) -> None:
        self._spec = spec
        self._begun: Mapping[str, Any] = {}
        self._answers: dict[str, _Answer] = {}
        self._tools: dict[str, item_pb2.Item] = {}
        self._denied = denied
        self._tally = ClaudeTally()
        self.is_interrupted = False
        """Whether the CLI was asked to stop: it then states what it has, as if it were whole."""
        self.vendor_error = ""
        """The vendor's word for the latest error of its API."""
        self.retries = 0
        """How often the CLI asked the model again."""
        self.answer = ""
        """The latest message of the agent."""

    def begin(self, state: Mapping[str, Any]) -> Events:
        """Yield that the turn has started, before the CLI says so: it has the prompt, and its state is known."""
        self._begun = state
        yield from begun(state, self._spec)

    def translate(self, received: Received) -> Events:
        """Yield what a message of the CLI means."""
        for kind in received.unknown_blocks:
            yield unknown_vendor_event(f"{received.kind}/{kind}")
        match received.message:
            case StreamEvent() as message:
                yield from self._from_stream(message)
            case AssistantMessage() as message:
                yield from self._from_answer(message)
            case UserMessage() as message:
                yield from self._from_user(message)
            case ResultMessage():
                yield from self._from_result(received.raw)
            case RateLimitEvent() as message:
                yield _from_rate_limit(message)
            case ConversationResetMessage():
                text = "The agent has forgotten what was said in the session before."
                yield notice("conversation_reset", text, severity=event_pb2.SEVERITY_WARNING)
            case SystemMessage() as message:
                yield from self._from_system(message)
            case _:
                yield unknown_vendor_event(received.kind)

    def _from_system(self, message: SystemMessage) -> Events:
        if message.subtype == "api_retry":
            self.retries += 1
        if message.subtype == "permission_denied":
            self._denied.add(str(message.data.get("tool_use_id", "")))
        if message.subtype == "init" and self._begun:
            yield from changed(self._begun, message.data)
        else:
            yield from translate_system(message, self._spec)

    # What is streamed.

    def _from_stream(self, message: StreamEvent) -> Events:
        parent = message.parent_tool_use_id or ""
        event: Mapping[str, Any] = message.event
        if event.get("type") != "message_start" and parent not in self._answers:
            yield unknown_vendor_event(f"stream_event/{event.get('type')} outside of a message")
            return
        match event.get("type"):
            case "message_start":
                yield from self._begin(parent, event["message"])
            case "content_block_start":
                yield from self._begin_block(parent, event["content_block"])
            case "content_block_delta":
                yield from self._add(parent, event["delta"])
            case "message_delta":
                answer = self._answers[parent]
                answer.is_ended = True
                self._tally.count(answer.message_id, answer.model, event.get("usage"))
                yield usage_updated(self._tally.total())
            case "content_block_stop" | "message_stop" | "ping":
                pass  # The block was stated whole before; the message ends with its last block.
            case kind:
                yield unknown_vendor_event(f"stream_event/{kind}")

    def _begin(self, parent: str, message: Mapping[str, Any]) -> Events:
        yield from self._retract(parent)
        answer = _Answer(message_id=message["id"], model=message["model"])
        self._answers[parent] = answer
        self._tally.count(answer.message_id, answer.model, message.get("usage"))

    def _begin_block(self, parent: str, block: Mapping[str, Any]) -> Events:
        match block["type"]:
            case "text":
                yield self._open(parent, _message(self._next_id(parent)))
            case "thinking":
                yield self._open(parent, _reasoning(self._next_id(parent)))
            case "tool_use" if is_plain_tool(block["name"]):
                yield self._open(parent, tool_item(block["id"], block["name"], {}, self._spec.workspace))
            case "tool_use" | "server_tool_use":
                pass  # Begins once its input is known: a command without its line says nothing.
            case kind if str(kind).endswith("_tool_result"):
                pass  # Of a tool that the API runs itself; stated whole.
            case kind:
                yield unknown_vendor_event(f"content_block/{kind}")

    def _add(self, parent: str, delta: Mapping[str, Any]) -> Events:
        item = self._answers[parent].open
        if item is None:
            return
        match delta["type"]:
            case "text_delta":
                yield text_delta(item.item_id, delta["text"])
            case "thinking_delta":
                yield text_delta(item.item_id, delta["thinking"])
            case "input_json_delta":
                added = event_pb2.ItemDelta(item_id=item.item_id, arguments_json=delta["partial_json"])
                yield event_pb2.Event(item_delta=added)
            case "signature_delta" | "citations_delta":
                pass  # For the vendor only.
            case kind:
                yield unknown_vendor_event(f"content_block_delta/{kind}")

    def _retract(self, parent: str) -> Events:
        """Take back a block that was streamed and not stated."""
        answer = self._answers.get(parent)
        if answer is None or answer.open is None:
            return
        item, answer.open = answer.open, None
        retracted = event_pb2.ItemRetracted(item_id=item.item_id, reason="the connection to the model broke")
        yield event_pb2.Event(item_retracted=retracted)
        yield item_completed(item, item_pb2.ITEM_STATUS_FAILED)

    # What is stated.

    def _from_answer(self, message: AssistantMessage) -> Events:
        if message.error or message.model == "<synthetic>":
            yield self._from_error(message)
            return
        parent = message.parent_tool_use_id or ""
        answer = self._answers.get(parent)
        if answer is None or answer.message_id != message.message_id:
            yield from self._begin_whole(parent, message)
        for block in message.content:
            match block:
                case TextBlock():
                    yield from self._state(parent, _message, block.text)
                    self.answer = self.answer if parent else block.text
                case ThinkingBlock():
                    yield from self._state(parent, _reasoning, block.thinking)
                case ToolUseBlock() | ServerToolUseBlock():
                    yield from self._state_tool(parent, block)
                case ServerToolResultBlock():
                    yield from self._complete_tool(_result_of_server(block), {})
                case ToolResultBlock():
                    yield from self._complete_tool(block, {})
                case _:
                    yield unknown_vendor_event(f"assistant/{type(block).__name__}")

    def _begin_whole(self, parent: str, message: AssistantMessage) -> Events:
        """Begin an answer that was not streamed: a subagent's, or one asked for after its stream had broken."""
        streamed = self._answers.get(parent)
        yield from self._begin(parent, {"id": message.message_id, "model": message.model, "usage": message.usage or {}})
        self._answers[parent].is_ended = True
        if streamed and not streamed.is_ended:
            self._tally.leave_out(streamed.message_id)
            self.retries += 1
            yield model_retry("The stream broke; the answer was asked for whole.", attempt=1, max_attempts=1)
        yield usage_updated(self._tally.total())

    def _state(self, parent: str, create: Callable[[str], item_pb2.Item], text: str) -> Events:
        answer = self._answers[parent]
        item, answer.open = answer.open, None
        if item is None:
            item = create(self._next_id(parent))
            item.parent_item_id = parent
            yield item_started(item)
        getattr(item, str(item.WhichOneof("content"))).text = text
        yield item_completed(item, _INTERRUPTED if self.is_interrupted else item_pb2.ITEM_STATUS_COMPLETED)

    def _state_tool(self, parent: str, block: ToolUseBlock | ServerToolUseBlock) -> Events:
        answer = self._answers[parent]
        item = tool_item(block.id, block.name, block.input, self._spec.workspace)
        item.parent_item_id = parent
        if answer.open is None or answer.open.item_id != block.id:
            yield item_started(item)
        answer.open = None
        self._tools[block.id] = item

    def _from_user(self, message: UserMessage) -> Events:
        outcome = message.tool_use_result if isinstance(message.tool_use_result, dict) else {}
        for block in message.content if isinstance(message.content, list) else []:
            if isinstance(block, ToolResultBlock):
                yield from self._complete_tool(block, outcome)

    def _complete_tool(self, block: ToolResultBlock, outcome: Mapping[str, Any]) -> Events:
        item = self._tools.pop(block.tool_use_id, None)
        if item is None:
            yield unknown_vendor_event("result of an unknown tool call")
            return
        complete(item, block, outcome, self._spec.workspace)
        yield item_completed(item, self._status(block, outcome))

    def _status(self, block: ToolResultBlock, outcome: Mapping[str, Any]) -> "item_pb2.ItemStatus.ValueType":
        if block.tool_use_id in self._denied:
            return item_pb2.ITEM_STATUS_DECLINED
        if outcome.get("interrupted") or (self.is_interrupted and block.is_error):
            return _INTERRUPTED
        return item_pb2.ITEM_STATUS_FAILED if block.is_error else item_pb2.ITEM_STATUS_COMPLETED

    def _from_error(self, message: AssistantMessage) -> event_pb2.Event:
        """Say that the API failed. Not the end: the CLI may go on, and only its result tells."""
        self.vendor_error = str(message.error or "")
        return notice(
            "model_error",
            "The model's vendor answered with an error.",
            severity=event_pb2.SEVERITY_WARNING,
            kind=self.vendor_error or "unknown",
        )

    def _from_result(self, result: Mapping[str, Any]) -> Events:
        for parent in list(self._answers):
            yield from self._retract(parent)
        self._tally.settle(result.get("model_usage_since_last_result") or {})
        if (usage := self._tally.total()).ListFields():
            yield usage_updated(usage)

    def _open(self, parent: str, item: item_pb2.Item) -> event_pb2.Event:
        item.parent_item_id = parent
        self._answers[parent].open = item
        return item_started(item)

    def _next_id(self, parent: str) -> str:
        answer = self._answers[parent]
        answer.blocks += 1
        return f"{answer.message_id}-{answer.blocks}"


def _result_of_server(block: ServerToolResultBlock) -> ToolResultBlock:
    """Return the result of a tool that the API ran itself as that of any other."""
    text = block.content.get("text") or json.dumps(block.content, ensure_ascii=False)
    is_error = str(block.content.get("type", "")).endswith("_error")
    return ToolResultBlock(tool_use_id=block.tool_use_id, content=text, is_error=is_error)


def _message(item_id: str) -> item_pb2.Item:
    return item_pb2.Item(item_id=item_id, message=item_pb2.MessageItem(role=item_pb2.ROLE_AGENT))


def _reasoning(item_id: str) -> item_pb2.Item:
    return item_pb2.Item(item_id=item_id, reasoning=item_pb2.ReasoningItem())


def _from_rate_limit(message: RateLimitEvent) -> event_pb2.Event:
    info = message.rate_limit_info
    return notice(
        "rate_limit",
        f"The vendor's rate limit: {info.status}.",
        severity=event_pb2.SEVERITY_INFO if info.status == "allowed" else event_pb2.SEVERITY_WARNING,
        status=str(info.status),
        window=str(info.rate_limit_type or ""),
        utilization=str(info.utilization or ""),
    )
