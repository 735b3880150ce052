"""What becomes of everything that the installed openai-codex knows: notifications, requests, thread items."""

from collections.abc import Iterator
from typing import get_args

from openai_codex.generated import v2_all
from openai_codex.generated.notification_registry import NOTIFICATION_MODELS

from alive_codex.approvals import OFFERED
from alive_codex.events import QUIET, TRANSLATED
from alive_codex.items import KINDS

Row = tuple[str, str, str]

_REFUSAL = "refused, with notice vendor_request_refused"

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

_REFUSED = (
    "account/chatgptAuthTokens/refresh",
    "applyPatchApproval",
    "attestation/generate",
    "currentTime/read",
    "execCommandApproval",
    "item/tool/call",
)
"""What the app-server may ask besides what becomes an approval (codex 0.163.0); the SDK has no list of it."""


def rows() -> Iterator[Row]:
    """Yield each kind with what becomes of it; empty where it is a notice for something unknown."""
    for method in sorted({*NOTIFICATION_MODELS, *TRANSLATED, *QUIET} - {"serverRequest/refused"}):
        yield "notification", method, TRANSLATED.get(method) or QUIET.get(method, "")
    for method, meaning in sorted({**OFFERED, **dict.fromkeys(_REFUSED, _REFUSAL)}.items()):
        yield "server request", method, meaning
    for kind in sorted(_kinds()):
        yield "thread item", kind, _ITEMS[kind] if kind in KINDS or kind == "userMessage" else ""


def _kinds() -> Iterator[str]:
    union = v2_all.ThreadItem.model_fields["root"].annotation
    for item in get_args(union):
        yield str(get_args(item.model_fields["type"].annotation)[0])
