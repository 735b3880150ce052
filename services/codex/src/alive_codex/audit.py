"""Finds tool calls that Codex made without an item of its own.

A command that fails at once with words such as "Permission denied" ran, but is not shown as a command; neither is a
call that Codex itself refused (0.163.0). The raw items of the model's answers tell of all of them.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from alive.agent.v1 import event_pb2, item_pb2
from alive_kit.events import item_completed, item_started

_CALLS = {"function_call", "custom_tool_call"}
_OUTPUTS = {"function_call_output", "custom_tool_call_output"}
_SHOWN_OTHERWISE = {"update_plan"}


class Audit:
    """The tool calls of one turn."""

    def __init__(self) -> None:
        self._calls: dict[str, Mapping[str, Any]] = {}
        self._called = False

    def shown(self, item_id: str) -> None:
        """Take note that a call has an item."""
        self._calls.pop(item_id, None)

    def take_calls_open(self) -> bool:
        """Return whether a tool was asked for since this was last asked."""
        called, self._called = self._called, False
        return called

    def hear(self, item: Mapping[str, Any]) -> Iterator[event_pb2.Event]:
        """Take a raw item; yield an item for a call that ended without one."""
        kind, call_id = item.get("type"), str(item.get("call_id", ""))
        if kind in _CALLS:
            self._called = True
            self._calls[call_id] = item
        elif kind in _OUTPUTS:
            call = self._calls.pop(call_id, None)
            if call and call.get("name") not in _SHOWN_OTHERWISE:
                yield from _unshown(call_id, call, _text(item.get("output")))


def _unshown(call_id: str, call: Mapping[str, Any], output: str) -> Iterator[event_pb2.Event]:
    name, arguments = str(call.get("name", "")), str(call.get("arguments") or call.get("input") or "")
    item = item_pb2.Item(item_id=call_id)
    if name == "exec_command":
        item.command.CopyFrom(item_pb2.CommandItem(command=_command(arguments), cwd=".", output=output))
    else:
        item.tool_call.CopyFrom(item_pb2.ToolCallItem(tool=name, arguments_json=_json(arguments)))
        item.tool_call.result.add(text=output)
    yield item_started(item)
    is_failed = name in {"exec_command", "apply_patch"}
    yield item_completed(item, item_pb2.ITEM_STATUS_FAILED if is_failed else item_pb2.ITEM_STATUS_COMPLETED)


def _command(arguments: str) -> str:
    try:
        return str(json.loads(arguments).get("cmd", ""))
    except (ValueError, AttributeError):
        return arguments


def _json(arguments: str) -> str:
    try:
        json.loads(arguments)
    except ValueError:
        return json.dumps(arguments, ensure_ascii=False)
    return arguments


def _text(output: object) -> str:
    if isinstance(output, str):
        return output
    parts = output if isinstance(output, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
