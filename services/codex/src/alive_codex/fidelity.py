"""What becomes of everything that the installed openai-codex knows: notifications, requests, thread items."""

from collections.abc import Iterator
from typing import get_args

from openai_codex.generated import v2_all
from openai_codex.generated.notification_registry import NOTIFICATION_MODELS

from alive_codex.approvals import OFFERED
from alive_codex.events import QUIET, TRANSLATED
from alive_codex.items import KINDS
from alive_kit.fidelity import UNASKED, Row

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

_UNASKED = {
    "account/": "nobody logs in: the key comes with each request",
    "app/": "no apps are connected",
    "autoApprovalReview/": "the caller answers approvals, not a model",
    "command/exec/": "only for clients that run commands themselves",
    "externalAgentConfig/": "no other agent's settings are imported",
    "fs/": "no files are watched",
    "fuzzyFileSearch/": "for screens that search",
    "guardianWarning": "the caller answers approvals, not a model",
    "hook/": "hooks of a workspace do not run",
    "item/autoApprovalReview/": "the caller answers approvals, not a model",
    "mcpServer/": "servers' bearers come with the request, and their events are not watched",
    "modelProvider/": "nobody logs in: the key comes with each request",
    "process/": "only for clients that run processes themselves",
    "project/": "no projects are kept",
    "thread/archived": "no other client manages threads",
    "thread/attachment/": "nothing is attached",
    "thread/closed": "no other client manages threads",
    "thread/compacted": "the item contextCompaction has taken its place",
    "thread/deleted": "no other client manages threads",
    "thread/environment/": "a thread has the environment of its turn",
    "thread/goal/": "no goals are set",
    "thread/prediction/": "for screens that predict what is typed",
    "thread/project/": "no projects are kept",
    "thread/queue/": "turns are queued by the service",
    "thread/realtime/": "nobody speaks with the model",
    "thread/reverted": "no other client manages threads",
    "thread/unarchived": "no other client manages threads",
    "windows": "not on Linux",
    "enteredReviewMode": "no reviews are started",
    "exitedReviewMode": "no reviews are started",
    "hookPrompt": "hooks of a workspace do not run",
    "sleep": "a tool that is not offered",
}
"""What the app-server says only to those who ask for it, by how its name begins, and why it is not asked for."""

_REFUSED = (
    "account/chatgptAuthTokens/refresh",
    "applyPatchApproval",
    "attestation/generate",
    "currentTime/read",
    "execCommandApproval",
    "item/permissions/requestApproval",
    "item/tool/call",
)
"""What the app-server may ask besides what becomes an approval (codex 0.163.0); the SDK has no list of it."""


def rows() -> Iterator[Row]:
    """Yield each kind with what becomes of it; empty where it is a notice for something unknown."""
    for method in sorted({*NOTIFICATION_MODELS, *TRANSLATED, *QUIET} - {"serverRequest/refused"}):
        yield "notification", method, TRANSLATED.get(method) or QUIET.get(method) or _unasked(method)
    for method, meaning in sorted({**OFFERED, **dict.fromkeys(_REFUSED, _REFUSAL)}.items()):
        yield "server request", method, meaning
    for kind in sorted(_kinds()):
        yield "thread item", kind, _ITEMS[kind] if kind in KINDS or kind == "userMessage" else _unasked(kind)


def _unasked(name: str) -> str:
    return next((f"{UNASKED}{why}" for begins, why in _UNASKED.items() if name.startswith(begins)), "")


def _kinds() -> Iterator[str]:
    union = v2_all.ThreadItem.model_fields["root"].annotation
    for item in get_args(union):
        yield str(get_args(item.model_fields["type"].annotation)[0])
