"""Turns Claude Code's tool calls into items. Shapes of inputs and results as of Claude Code 2.1.330."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from claude_agent_sdk import ToolResultBlock

from alive.agent.v1 import item_pb2
from alive_kit import diffs
from alive_kit.workspaces import Workspace

Input = Mapping[str, Any]
Outcome = Mapping[str, Any]
"""What the CLI says of a tool's result beside the text that the model reads; empty when it says nothing."""

_EXIT_CODE = re.compile(r"Exit code (\d+)\n?")
_PLAN_STATES = {
    "pending": item_pb2.PLAN_STEP_STATE_PENDING,
    "in_progress": item_pb2.PLAN_STEP_STATE_IN_PROGRESS,
    "completed": item_pb2.PLAN_STEP_STATE_COMPLETED,
}


def is_plain_tool(name: str) -> bool:
    """Whether a tool has no kind of item of its own."""
    return name not in _KINDS


def tool_item(item_id: str, name: str, arguments: Input, workspace: Workspace) -> item_pb2.Item:
    """Return the item of a tool call as it begins."""
    item = item_pb2.Item(item_id=item_id)
    if name in _KINDS:
        _KINDS[name](item, arguments, workspace)
    else:
        item.tool_call.CopyFrom(_tool_call(name, arguments))
    return item


def complete(item: item_pb2.Item, block: ToolResultBlock, outcome: Outcome, workspace: Workspace) -> None:
    """Add a tool's result to its item."""
    match item.WhichOneof("content"):
        case "command":
            _complete_command(item.command, block, outcome)
        case "file_change" if not block.is_error:
            _complete_file_change(item.file_change, outcome, workspace)
        case "web_search":
            item.web_search.results.extend(_pages(outcome))
        case "subagent":
            item.subagent.result = _text(block)
        case "tool_call":
            _complete_tool_call(item.tool_call, block)


def _command(item: item_pb2.Item, arguments: Input, workspace: Workspace) -> None:
    item.command.CopyFrom(item_pb2.CommandItem(command=str(arguments.get("command", "")), cwd="."))


def _write(item: item_pb2.Item, arguments: Input, workspace: Workspace) -> None:
    item.file_change.changes.add(path=workspace.relative(str(arguments.get("file_path", ""))))


def _edit(item: item_pb2.Item, arguments: Input, workspace: Workspace) -> None:
    path = str(arguments.get("file_path") or arguments.get("notebook_path") or "")
    item.file_change.changes.add(path=workspace.relative(path), kind=item_pb2.FILE_CHANGE_KIND_UPDATE)


def _plan(item: item_pb2.Item, arguments: Input, workspace: Workspace) -> None:
    item.plan.SetInParent()
    for step in arguments.get("todos") or []:
        state = _PLAN_STATES.get(step.get("status"), item_pb2.PLAN_STEP_STATE_PENDING)
        item.plan.steps.add(text=str(step.get("content", "")), state=state)


def _proposed_plan(item: item_pb2.Item, arguments: Input, workspace: Workspace) -> None:
    item.plan.text = str(arguments.get("plan", ""))


def _web_search(item: item_pb2.Item, arguments: Input, workspace: Workspace) -> None:
    item.web_search.query = str(arguments.get("query", ""))


def _subagent(item: item_pb2.Item, arguments: Input, workspace: Workspace) -> None:
    item.subagent.description = str(arguments.get("prompt") or arguments.get("description") or "")


_KINDS: dict[str, Callable[[item_pb2.Item, Input, Workspace], None]] = {
    "Bash": _command,
    "Write": _write,
    "Edit": _edit,
    "NotebookEdit": _edit,
    "TodoWrite": _plan,
    "ExitPlanMode": _proposed_plan,
    "WebSearch": _web_search,
    "Agent": _subagent,
    "Task": _subagent,
}


def _tool_call(name: str, arguments: Input) -> item_pb2.ToolCallItem:
    server, tool = "", name
    if name.startswith("mcp__"):
        server, _, tool = name.removeprefix("mcp__").partition("__")
    return item_pb2.ToolCallItem(
        server=server, tool=tool, arguments_json=json.dumps(arguments, ensure_ascii=False) if arguments else ""
    )


def _complete_command(command: item_pb2.CommandItem, block: ToolResultBlock, outcome: Outcome) -> None:
    text = _text(block)
    exit_code = _EXIT_CODE.match(text)
    if exit_code:
        command.exit_code = int(exit_code[1])
        command.output = text[exit_code.end() :]
    elif outcome:
        command.output = "\n".join(part for part in (outcome.get("stdout"), outcome.get("stderr")) if part)
        if not block.is_error and not outcome.get("interrupted") and not outcome.get("backgroundTaskId"):
            command.exit_code = 0
    else:
        command.output = text


def _complete_file_change(item: item_pb2.FileChangeItem, outcome: Outcome, workspace: Workspace) -> None:
    change = item.changes[0]
    is_new = outcome.get("type") == "create" or (outcome.get("originalFile") is None and "content" in outcome)
    change.kind = item_pb2.FILE_CHANGE_KIND_ADD if is_new else item_pb2.FILE_CHANGE_KIND_UPDATE
    if is_new:
        change.diff = diffs.new_file(change.path, str(outcome.get("content", "")))
    else:
        change.diff = diffs.changed_file(change.path, "\n".join(_hunks(outcome.get("structuredPatch") or [])))


def _hunks(hunks: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for hunk in hunks:
        yield f"@@ -{hunk['oldStart']},{hunk['oldLines']} +{hunk['newStart']},{hunk['newLines']} @@"
        yield from hunk["lines"]


def _pages(outcome: Outcome) -> Iterable[item_pb2.WebSearchResult]:
    for result in outcome.get("results") or []:
        for page in (result.get("content") or []) if isinstance(result, dict) else []:
            yield item_pb2.WebSearchResult(title=page.get("title", ""), url=page.get("url", ""))


def _complete_tool_call(call: item_pb2.ToolCallItem, block: ToolResultBlock) -> None:
    if block.is_error:
        call.error = _text(block)
        return
    for part in _parts(block):
        match part.get("type"):
            case "image":
                source = part.get("source") or {}
                data = base64.b64decode(source.get("data", ""))
                call.result.add().image.CopyFrom(
                    item_pb2.ImageContent(mime_type=source.get("media_type", ""), data=data)
                )
            case "text":
                call.result.add(text=part.get("text", ""))
            case _:
                call.result.add(text=json.dumps(part, ensure_ascii=False))


def _parts(block: ToolResultBlock) -> list[dict[str, Any]]:
    return [{"type": "text", "text": block.content}] if isinstance(block.content, str) else block.content or []


def _text(block: ToolResultBlock) -> str:
    return "\n".join(part.get("text", "") for part in _parts(block))
