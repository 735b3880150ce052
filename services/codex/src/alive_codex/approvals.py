"""Asks the caller what Codex asks. Shapes of requests and answers as of codex 0.163.0."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from alive.agent.v1 import approval_pb2, item_pb2
from alive_codex.app_server import ServerRequest
from alive_codex.items import unwrapped
from alive_kit.provider import Turn
from alive_kit.workspaces import Workspace

Params = Mapping[str, Any]
Answer = dict[str, Any]

_ALLOWED = frozenset({approval_pb2.DECISION_KIND_ALLOW_ONCE, approval_pb2.DECISION_KIND_ALLOW_FOR_SESSION})

OFFERED = {
    "item/commandExecution/requestApproval": "approval_requested command",
    "item/fileChange/requestApproval": "approval_requested file_change",
    "item/tool/requestUserInput": "approval_requested questions",
    "mcpServer/elicitation/request": "approval_requested tool_call or elicitation",
}
"""Requests that become approvals."""


class Asking:
    """What one agent asks."""

    def __init__(self, workspace: Workspace, open_items: Callable[[], Iterable[item_pb2.Item]]) -> None:
        self._workspace = workspace
        self._open_items = open_items

    async def answer(self, request: ServerRequest, turn: Turn) -> None:
        """Ask the caller and answer Codex."""
        match request.method:
            case "item/commandExecution/requestApproval" | "item/fileChange/requestApproval":
                decision = await turn.ask(self._action(request.params))
                await request.answer({"decision": "accept" if decision.kind in _ALLOWED else "decline"})
            case "item/tool/requestUserInput":
                decision = await turn.ask(_questions(request.params))
                answers = {answer.question_id: {"answers": list(answer.values)} for answer in decision.answers}
                await request.answer({"answers": answers})
            case "mcpServer/elicitation/request" if _is_tool_approval(request.params):
                decision = await turn.ask(self._tool_call(request.params))
                allowed = decision.kind in _ALLOWED
                await request.answer({"action": "accept", "content": {}} if allowed else {"action": "decline"})
            case _:
                decision = await turn.ask(_elicitation(request.params))
                if decision.kind == approval_pb2.DECISION_KIND_ANSWER:
                    content = json.loads(decision.content_json) if decision.content_json else {}
                    await request.answer({"action": "accept", "content": content})
                else:
                    await request.answer({"action": "decline"})

    def _action(self, params: Params) -> approval_pb2.ApprovalRequested:
        """Return the question about a command or a patch; what a patch changes is in its item."""
        item_id = str(params.get("itemId", ""))
        asked = approval_pb2.ApprovalRequested(item_id=item_id, reason=str(params.get("reason") or ""))
        item = next((item for item in self._open_items() if item.item_id == item_id), None)
        if item is not None and item.HasField("file_change"):
            asked.file_change.CopyFrom(item.file_change)
        elif "command" in params or (item is not None and item.HasField("command")):
            command = params.get("command") or (item.command.command if item else "")
            asked.command.command = unwrapped(str(command))
            asked.command.cwd = self._workspace.relative(str(params.get("cwd") or "."))
        else:
            asked.escalation.paths.extend(path for path in [params.get("grantRoot")] if path)
        return asked

    def _tool_call(self, params: Params) -> approval_pb2.ApprovalRequested:
        """Return the question about a tool: Codex names its server and arguments, and the tool in a sentence only."""
        server, message = str(params.get("serverName") or ""), str(params.get("message") or "")
        arguments = (params.get("_meta") or {}).get("tool_params") or {}
        asked = approval_pb2.ApprovalRequested(reason=message)
        asked.tool_call.CopyFrom(item_pb2.ToolCallItem(server=server, arguments_json=json.dumps(arguments)))
        for item in self._open_items():
            call = item.tool_call
            is_meant = call.server == server and json.loads(call.arguments_json or "{}") == arguments
            if is_meant and f'"{call.tool}"' in message:
                asked.item_id = item.item_id
                asked.tool_call.CopyFrom(call)
        return asked


def _questions(params: Params) -> approval_pb2.ApprovalRequested:
    asked = approval_pb2.ApprovalRequested(item_id=str(params.get("itemId") or ""))
    asked.questions.SetInParent()
    for question in params.get("questions") or []:
        added = asked.questions.questions.add(
            question_id=str(question["id"]),
            header=str(question.get("header") or ""),
            text=str(question.get("question") or ""),
        )
        for option in question.get("options") or []:
            added.options.add(label=str(option.get("label", "")), description=str(option.get("description") or ""))
    return asked


def _is_tool_approval(params: Params) -> bool:
    return (params.get("_meta") or {}).get("codex_approval_kind") == "mcp_tool_call"


def _elicitation(params: Params) -> approval_pb2.ApprovalRequested:
    schema = params.get("requestedSchema")
    asked = approval_pb2.ApprovalRequested(reason=str(params.get("message") or ""))
    asked.elicitation.server = str(params.get("serverName") or "")
    asked.elicitation.message = str(params.get("message") or "")
    asked.elicitation.schema_json = json.dumps(schema, ensure_ascii=False) if schema else ""
    return asked
