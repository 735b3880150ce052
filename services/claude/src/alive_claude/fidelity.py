"""What becomes of everything that claude-agent-sdk can yield. The kinds come from the installed SDK itself."""

import re
from collections.abc import Iterator
from inspect import getsource
from typing import get_args

from claude_agent_sdk import ContentBlock, Message
from claude_agent_sdk._internal import message_parser

from alive_claude.steering import KIND
from alive_claude.system import QUIET, TRANSLATED
from alive_kit.fidelity import UNASKED, Row

_MESSAGES = {
    "UserMessage": "results of tool calls: item_completed; the user's own words are said by the kit",
    "AssistantMessage": "items stated whole: item_started, item_completed; with an error: notice model_error",
    "SystemMessage": "by its subtype, see below",
    "ResultMessage": "usage_updated and the terminal event",
    "StreamEvent": "item_started, item_delta, item_retracted, usage_updated",
    "RateLimitEvent": "notice rate_limit",
    "ConversationResetMessage": "notice conversation_reset",
}

_BLOCKS = {
    "TextBlock": "item message",
    "ThinkingBlock": "item reasoning",
    "ToolUseBlock": "item command, file_change, plan, web_search, subagent or tool_call",
    "ToolResultBlock": "completes the item of its tool call",
    "ServerToolUseBlock": "item tool_call",
    "ServerToolResultBlock": "completes the item of its tool call",
}


_UNASKED = {"mirror_error": f"{UNASKED}sessions are not kept anywhere else"}


def rows() -> Iterator[Row]:
    """Yield each kind with what becomes of it; empty where it is a notice for something unknown."""
    for message in get_args(Message):
        yield "message", message.__name__, _MESSAGES.get(message.__name__, "")
    for block in get_args(ContentBlock):
        yield "content block", block.__name__, _BLOCKS.get(block.__name__, "")
    for subtype in sorted({*TRANSLATED, *QUIET, *_subtypes()}):
        yield "system subtype", subtype, TRANSLATED.get(subtype) or QUIET.get(subtype) or _UNASKED.get(subtype, "")
    yield "beside the SDK", KIND, "not shown: whether what was added to a turn was answered; see SteerTurn"


def _subtypes() -> list[str]:
    """Return the subtypes of system messages that the SDK has classes for."""
    source = getsource(message_parser.parse_message)
    inside = source[source.index('case "system"') : source.index('case "result"')]
    return re.findall(r'case "(\w+)"', inside)[1:]
