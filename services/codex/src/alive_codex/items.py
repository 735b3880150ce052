"""Turns Codex's thread items into items. Their shapes as of codex 0.163.0."""

import base64
import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from alive.agent.v1 import item_pb2
from alive_kit import diffs
from alive_kit.workspaces import Workspace

Vendor = Mapping[str, Any]
"""An item as Codex states it."""

_STATUSES = {
    "inProgress": item_pb2.ITEM_STATUS_IN_PROGRESS,
    "completed": item_pb2.ITEM_STATUS_COMPLETED,
    "failed": item_pb2.ITEM_STATUS_FAILED,
    "declined": item_pb2.ITEM_STATUS_DECLINED,
    "interrupted": item_pb2.ITEM_STATUS_INTERRUPTED,
}

_CHANGES = {
    "add": item_pb2.FILE_CHANGE_KIND_ADD,
    "update": item_pb2.FILE_CHANGE_KIND_UPDATE,
    "delete": item_pb2.FILE_CHANGE_KIND_DELETE,
}

_PLAN_STATES = {
    "pending": item_pb2.PLAN_STEP_STATE_PENDING,
    "inProgress": item_pb2.PLAN_STEP_STATE_IN_PROGRESS,
    "completed": item_pb2.PLAN_STEP_STATE_COMPLETED,
}


def is_known(vendor: Vendor) -> bool:
    """Whether a kind of item has a place in the contract."""
    return vendor.get("type") in KINDS


def item_of(vendor: Vendor, workspace: Workspace) -> item_pb2.Item:
    """Return the item for one of Codex's."""
    item = item_pb2.Item(item_id=str(vendor["id"]))
    KINDS[vendor["type"]](item, vendor, workspace)
    return item


def status_of(vendor: Vendor) -> "item_pb2.ItemStatus.ValueType":
    """Return how an item ended."""
    if vendor["type"] == "commandExecution" and vendor.get("exitCode"):
        return item_pb2.ITEM_STATUS_FAILED
    status = _STATUSES.get(str(vendor.get("status")), item_pb2.ITEM_STATUS_COMPLETED)
    return item_pb2.ITEM_STATUS_INTERRUPTED if status == item_pb2.ITEM_STATUS_IN_PROGRESS else status


def plan_item(item_id: str, plan: Vendor) -> item_pb2.Item:
    """Return the item for a plan that the agent stated."""
    item = item_pb2.Item(item_id=item_id, plan=item_pb2.PlanItem(explanation=plan.get("explanation") or ""))
    for step in plan.get("plan") or []:
        state = _PLAN_STATES.get(step.get("status"), item_pb2.PLAN_STEP_STATE_PENDING)
        item.plan.steps.add(text=str(step.get("step", "")), state=state)
    return item


def _message(item: item_pb2.Item, vendor: Vendor, workspace: Workspace) -> None:
    item.message.CopyFrom(item_pb2.MessageItem(role=item_pb2.ROLE_AGENT, text=vendor.get("text", "")))


def _reasoning(item: item_pb2.Item, vendor: Vendor, workspace: Workspace) -> None:
    summary, content = vendor.get("summary") or [], vendor.get("content") or []
    text = "\n\n".join(content or summary)
    item.reasoning.CopyFrom(item_pb2.ReasoningItem(text=text, summary=bool(summary and not content)))


def _command(item: item_pb2.Item, vendor: Vendor, workspace: Workspace) -> None:
    item.command.CopyFrom(
        item_pb2.CommandItem(
            command=unwrapped(vendor.get("command", "")),
            cwd=workspace.relative(vendor.get("cwd") or "."),
            output=vendor.get("aggregatedOutput") or "",
            exit_code=vendor.get("exitCode"),
        )
    )
    _set_duration(item.command, vendor)


def unwrapped(command: str) -> str:
    """Return the command as the agent gave it, without the shell that Codex puts around it."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    is_wrapped = len(words) == 3 and words[0].endswith("sh") and words[1] in {"-c", "-lc"}
    return words[2] if is_wrapped else command


def _file_change(item: item_pb2.Item, vendor: Vendor, workspace: Workspace) -> None:
    item.file_change.SetInParent()
    for change in vendor.get("changes") or []:
        item.file_change.changes.append(_change(change, workspace))


def _change(change: Vendor, workspace: Workspace) -> item_pb2.FileChange:
    path, diff = workspace.relative(change["path"]), change.get("diff", "")
    kind = _CHANGES.get(change["kind"]["type"], item_pb2.FILE_CHANGE_KIND_UPDATE)
    moved_to = change["kind"].get("move_path") or change["kind"].get("movePath")
    match kind:
        case item_pb2.FILE_CHANGE_KIND_ADD:
            return item_pb2.FileChange(path=path, kind=kind, diff=diffs.new_file(path, diff))
        case item_pb2.FILE_CHANGE_KIND_DELETE:
            return item_pb2.FileChange(path=path, kind=kind, diff=diffs.deleted_file(path, diff))
        case _ if moved_to:
            new_path = workspace.relative(moved_to)
            diff = diffs.changed_file(path, diff)
            return item_pb2.FileChange(path=path, kind=item_pb2.FILE_CHANGE_KIND_MOVE, new_path=new_path, diff=diff)
        case _:
            return item_pb2.FileChange(path=path, kind=kind, diff=diffs.changed_file(path, diff))


def _mcp_call(item: item_pb2.Item, vendor: Vendor, workspace: Workspace) -> None:
    result, error = vendor.get("result") or {}, vendor.get("error") or {}
    call = _call(vendor, server=vendor["server"])
    call.error = error.get("message", "")
    call.result.extend(_contents(result.get("content") or []))
    if (structured := result.get("structuredContent")) is not None:
        call.structured_json = json.dumps(structured, ensure_ascii=False)
    item.tool_call.CopyFrom(call)


def _dynamic_call(item: item_pb2.Item, vendor: Vendor, workspace: Workspace) -> None:
    call = _call(vendor, server="")
    call.result.extend(_contents(vendor.get("contentItems") or []))
    item.tool_call.CopyFrom(call)


def _call(vendor: Vendor, *, server: str) -> item_pb2.ToolCallItem:
    arguments = vendor.get("arguments")
    call = item_pb2.ToolCallItem(
        server=server,
        tool=vendor["tool"],
        arguments_json="" if arguments is None else json.dumps(arguments, ensure_ascii=False),
    )
    _set_duration(call, vendor)
    return call


def _contents(parts: Iterable[Vendor]) -> Iterable[item_pb2.ToolContent]:
    for part in parts:
        match part.get("type"):
            case "text" | "inputText":
                yield item_pb2.ToolContent(text=part.get("text", ""))
            case "image":
                yield item_pb2.ToolContent(image=_image_content(part))
            case _:
                yield item_pb2.ToolContent(text=json.dumps(part, ensure_ascii=False))


def _image_content(part: Vendor) -> item_pb2.ImageContent:
    return item_pb2.ImageContent(mime_type=part.get("mimeType", ""), data=base64.b64decode(part.get("data", "")))


def _web_search(item: item_pb2.Item, vendor: Vendor, workspace: Workspace) -> None:
    action = vendor.get("action") or {}
    query = vendor.get("query") or action.get("query") or action.get("url") or ""
    item.web_search.CopyFrom(item_pb2.WebSearchItem(query=query))
    for page in vendor.get("results") or []:
        item.web_search.results.add(title=page.get("title") or "", url=page.get("url") or "")


def _written_plan(item: item_pb2.Item, vendor: Vendor, workspace: Workspace) -> None:
    item.plan.CopyFrom(item_pb2.PlanItem(text=vendor.get("text", "")))


def _image(item: item_pb2.Item, vendor: Vendor, workspace: Workspace) -> None:
    path = vendor.get("path") or vendor.get("savedPath") or ""
    item.image.CopyFrom(item_pb2.ImageItem(path=workspace.relative(path) if path else ""))


def _compaction(item: item_pb2.Item, vendor: Vendor, workspace: Workspace) -> None:
    item.context_compaction.SetInParent()


def _subagent(item: item_pb2.Item, vendor: Vendor, workspace: Workspace) -> None:
    item.subagent.CopyFrom(item_pb2.SubagentItem(description=vendor.get("prompt") or vendor.get("agentPath") or ""))


def _set_duration(target: item_pb2.CommandItem | item_pb2.ToolCallItem, vendor: Vendor) -> None:
    if vendor.get("durationMs") is not None:
        target.duration.FromMilliseconds(vendor["durationMs"])


KINDS: dict[str, Callable[[item_pb2.Item, Vendor, Workspace], None]] = {
    "agentMessage": _message,
    "reasoning": _reasoning,
    "commandExecution": _command,
    "fileChange": _file_change,
    "mcpToolCall": _mcp_call,
    "dynamicToolCall": _dynamic_call,
    "webSearch": _web_search,
    "plan": _written_plan,
    "imageView": _image,
    "imageGeneration": _image,
    "contextCompaction": _compaction,
    "collabAgentToolCall": _subagent,
    "subAgentActivity": _subagent,
}
