"""What becomes of everything that the installed openai-codex knows: notifications, requests, thread items."""

from collections.abc import Iterator
from typing import get_args

from openai_codex.generated import v2_all
from openai_codex.generated.notification_registry import NOTIFICATION_MODELS

from alive_codex.events import QUIET, TRANSLATED
from alive_codex.items import KINDS

Row = tuple[str, str, str]

_ITEMS = {
    "agentMessage": "item message",
    "reasoning": "item reasoning",
    "commandExecution": "item command",
    "fileChange": "item file_change",
    "mcpToolCall": "item tool_call",
    "dynamicToolCall": "item tool_call",
    "webSearch": "item web_search",
    "plan": "item plan",
    "imageView": "item image",
    "imageGeneration": "item image",
    "contextCompaction": "item context_compaction",
    "collabAgentToolCall": "item subagent",
    "subAgentActivity": "item subagent",
    "userMessage": "the user's own words are said by the kit",
}

_REQUESTS = (
    "item/commandExecution/requestApproval",
    "item/fileChange/requestApproval",
    "item/permissions/requestApproval",
    "item/tool/requestUserInput",
    "item/tool/call",
    "mcpServer/elicitation/request",
)
"""What the app-server may ask; the SDK has no list of it. With the policy that never asks none of these comes."""


def rows() -> Iterator[Row]:
    """Yield each kind with what becomes of it; empty where it is a notice for something unknown."""
    for method in sorted({*NOTIFICATION_MODELS, *TRANSLATED, *QUIET} - {"serverRequest/refused"}):
        yield "notification", method, TRANSLATED.get(method) or QUIET.get(method, "")
    for method in _REQUESTS:
        yield "server request", method, "refused, with notice vendor_request_refused"
    for kind in sorted(_kinds()):
        yield "thread item", kind, _ITEMS[kind] if kind in KINDS or kind == "userMessage" else ""


def _kinds() -> Iterator[str]:
    union = v2_all.ThreadItem.model_fields["root"].annotation
    for item in get_args(union):
        yield str(get_args(item.model_fields["type"].annotation)[0])
