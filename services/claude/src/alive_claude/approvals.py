"""Asks the caller what Claude Code asks. Shapes of tools' inputs as of Claude Code 2.1.330."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from claude_agent_sdk import PermissionResult, PermissionResultAllow, PermissionResultDeny, ToolPermissionContext

from alive.agent.v1 import approval_pb2, item_pb2
from alive_claude.items import tool_item
from alive_kit import diffs
from alive_kit.provider import Turn
from alive_kit.workspaces import Workspace

QUESTIONS = "AskUserQuestion"
"""The tool by which the agent asks the user; the CLI offers it only where somebody is asked for permission."""

_DENIED = frozenset({approval_pb2.DECISION_KIND_DENY, approval_pb2.DECISION_KIND_DENY_AND_INTERRUPT})


class Asking:
    """What one agent asks."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        asks: bool,
        may_use: Callable[[str], bool],
        is_read_only: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._workspace = workspace
        self._asks = asks
        self._may_use = may_use
        self._is_read_only = is_read_only
        self.turn: Turn | None = None
        self.denied: set[str] = set()
        """The tool calls that were denied."""

    def begin(self, turn: Turn) -> None:
        """Ask the caller of another turn."""
        self.turn = turn
        self.denied.clear()

    def close(self) -> None:
        """Ask nothing more: what knows the agent's tools has the agent, which has this."""
        self.turn = None
        self._is_read_only = _is_unknown

    async def can_use_tool(
        self, name: str, arguments: dict[str, Any], context: ToolPermissionContext
    ) -> PermissionResult:
        """Decide about a tool call, as the SDK wants it."""
        call_id = str(context.tool_use_id or "")
        turn = self.turn
        if not self._may_use(name) or turn is None:
            self.denied.add(call_id)
            return PermissionResultDeny(message=f"{name} is not allowed here.")
        if await self._is_read_only(name):
            return PermissionResultAllow(updated_input=arguments)
        if not self._asks:
            self.denied.add(call_id)
            return PermissionResultDeny(message=f"{name} may change something, and a plan is asked for.")
        asked = self._asked(name, arguments, context)
        decision = await turn.ask(asked)
        if decision.kind in _DENIED:
            self.denied.add(call_id)
            return PermissionResultDeny(message=decision.message or "The user does not want this.")
        if asked.HasField("questions"):
            return PermissionResultAllow(updated_input={**arguments, "answers": _answers(asked.questions, decision)})
        changed = json.loads(decision.changed_input_json) if decision.changed_input_json else arguments
        return PermissionResultAllow(updated_input=changed)

    async def elicit(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for what an MCP server wants of the user, and return the answer as MCP has it."""
        if self.turn is None or not self._asks:
            return {"action": "decline"}
        schema, message = params.get("requested_schema"), str(params.get("message") or "")
        asked = approval_pb2.ApprovalRequested(reason=message)
        asked.elicitation.server = str(params.get("mcp_server_name") or "")
        asked.elicitation.message = message
        asked.elicitation.schema_json = json.dumps(schema, ensure_ascii=False) if schema else ""
        decision = await self.turn.ask(asked)
        if decision.kind != approval_pb2.DECISION_KIND_ANSWER:
            return {"action": "decline"}
        return {"action": "accept", "content": json.loads(decision.content_json or "{}")}

    def _asked(
        self, name: str, arguments: Mapping[str, Any], context: ToolPermissionContext
    ) -> approval_pb2.ApprovalRequested:
        reason = context.title or context.description or context.decision_reason or ""
        asked = approval_pb2.ApprovalRequested(item_id=str(context.tool_use_id or ""), reason=reason)
        if name == QUESTIONS:
            asked.questions.CopyFrom(_questions(arguments))
            return asked
        asked.accepts_changed_input = True
        asked.input_json = json.dumps(arguments, ensure_ascii=False)
        item = tool_item(asked.item_id, name, arguments, self._workspace)
        match item.WhichOneof("content"):
            case "command":
                asked.command.CopyFrom(item.command)
            case "file_change":
                asked.file_change.CopyFrom(item.file_change)
                asked.file_change.changes[0].diff = _diff(asked.file_change.changes[0].path, arguments)
            case "tool_call":
                asked.tool_call.CopyFrom(item.tool_call)
            case _:
                asked.tool_call.CopyFrom(item_pb2.ToolCallItem(tool=name, arguments_json=asked.input_json))
        return asked


async def _is_unknown(_name: str) -> bool:
    return False


def _questions(arguments: Mapping[str, Any]) -> approval_pb2.QuestionSet:
    """Return the questions; the CLI knows them by their text, so that is their id here by position."""
    found = approval_pb2.QuestionSet()
    for index, question in enumerate(arguments.get("questions") or []):
        asked = found.questions.add(
            question_id=f"q{index + 1}",
            header=str(question.get("header", "")),
            text=str(question.get("question", "")),
            multiple=bool(question.get("multiSelect")),
        )
        for option in question.get("options") or []:
            asked.options.add(label=str(option.get("label", "")), description=str(option.get("description", "")))
    return found


def _answers(questions: approval_pb2.QuestionSet, decision: approval_pb2.Decision) -> dict[str, str]:
    texts = {question.question_id: question.text for question in questions.questions}
    return {texts[answer.question_id]: ", ".join(answer.values) for answer in decision.answers}


def _diff(path: str, arguments: Mapping[str, Any]) -> str:
    """Return what a change would do, as far as its input says: without line numbers, the file is not looked at."""
    if "content" in arguments:
        return diffs.new_file(path, str(arguments["content"]))
    old, new = (
        str(arguments.get("old_string", "")),
        str(arguments.get("new_string") or arguments.get("new_source") or ""),
    )
    lines = [f"-{line}" for line in old.splitlines()] + [f"+{line}" for line in new.splitlines()]
    return diffs.changed_file(path, "\n".join(["@@ @@", *lines]))
