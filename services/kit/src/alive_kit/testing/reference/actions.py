"""What the agent does for real when the model says so."""

import asyncio
import contextlib
import difflib
import json
import os
import signal
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from alive_kit.testing.reference.tools import exists
from alive_kit.testing.reference.wire import Json, Wire

if TYPE_CHECKING:
    from alive_kit.testing.reference.servers import Servers

ASKING = ("APPROVAL_POLICY_ASK", "APPROVAL_POLICY_ACCEPT_EDITS")

_ALLOWED = ("DECISION_KIND_ALLOW_ONCE", "DECISION_KIND_ALLOW_FOR_SESSION")
_PLAN_STATES = {"pending": "PENDING", "in_progress": "IN_PROGRESS", "completed": "COMPLETED"}


class Declined(Exception):
    """Something may not be done; the text is for the model."""


class Actions:
    """The actions of one turn, each an item."""

    def __init__(self, wire: Wire, servers: "Servers | None", policy: str, rules: Json) -> None:
        self._wire = wire
        self._servers = servers
        self._policy = policy
        own: dict[str, Callable[[Json, Json], Awaitable[str]]] = {
            "run_command": self._run_command,
            "write_file": self._change_file,
            "edit_file": self._change_file,
            "update_plan": self._update_plan,
            "ask_user": self._ask_user,
        }
        self._do = {name: do for name, do in own.items() if exists(name, **rules)} | {"call_tool": self._call_tool}

    async def do(self, action: Json) -> str:
        """Do what the model wants, and return what it is told."""
        item: Json = {"item_id": uuid.uuid4().hex}
        try:
            return await self._do.get(action["kind"], self._unknown)(action, item)
        except Declined as declined:
            return self._complete(item, "DECLINED", str(declined))

    async def _run_command(self, action: Json, item: Json) -> str:
        item["command"] = {"command": action["command"], "cwd": "."}
        self._start(item)
        decision = await self._permit(item, accepts_changed_input=True, input_json=json.dumps(action))
        changed = json.loads(decision.get("changed_input_json") or "{}")
        item["command"]["command"] = changed.get("command", action["command"])
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", item["command"]["command"]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output = await self._output(item["item_id"], process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        item["command"] |= {"output": output, "exit_code": process.returncode}
        return self._complete(item, "FAILED" if process.returncode else "COMPLETED", output)

    async def _output(self, item_id: str, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None
        output = ""
        while piece := (await process.stdout.read(1 << 16)).decode(errors="replace"):
            output += piece
            self._wire.emit("item_delta", {"item_id": item_id, "output": piece})
        await process.wait()
        return output

    async def _change_file(self, action: Json, item: Json) -> str:
        path = Path(action["path"])
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        new = action["content"] if "content" in action else old.replace(action["old"], action["new"], 1)
        kind = "FILE_CHANGE_KIND_UPDATE" if path.exists() else "FILE_CHANGE_KIND_ADD"
        before = f"a/{path}" if path.exists() else "/dev/null"
        lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), before, f"b/{path}")
        item["file_change"] = {"changes": [{"path": str(path), "kind": kind, "diff": "".join(lines)}]}
        self._start(item)
        await self._permit(item)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(new, encoding="utf-8")
        return self._complete(item, "COMPLETED", f"{path} is written")

    async def _call_tool(self, action: Json, item: Json) -> str:
        server, tool, arguments = action["server"], action["tool"], action["arguments"]
        call = {"server": server, "tool": tool, "arguments_json": json.dumps(arguments)}
        item["tool_call"] = call
        self._start(item)
        if self._servers is None or not self._servers.has(server, tool):
            came: Json = {"error": f"there is no tool {tool} of {server}"}
        else:
            if not self._servers.is_read_only(server, tool):
                await self._permit(item)
            came = await self._servers.call(server, tool, arguments)
        item["tool_call"] = {**call, **came}
        return self._complete(item, "FAILED" if "error" in came else "COMPLETED", json.dumps(came))

    async def _update_plan(self, action: Json, item: Json) -> str:
        steps = [{"text": text, "state": f"PLAN_STEP_STATE_{_PLAN_STATES[state]}"} for text, state in action["steps"]]
        item["plan"] = {"steps": steps}
        self._start(item)
        return self._complete(item, "COMPLETED", "the plan is taken down")

    async def _ask_user(self, action: Json, item: Json) -> str:
        options = [{"label": label} for label in action["options"]]
        item["tool_call"] = {"tool": "ask_user", "arguments_json": json.dumps(action)}
        self._start(item)
        if self._policy not in ASKING:
            raise Declined("nobody is there to be asked")
        question = {"question_id": "1", "text": action["question"], "options": options}
        decision = await self._wire.ask(item_id=item["item_id"], questions={"questions": [question]})
        if "answers" not in decision:
            raise Declined(decision.get("message") or "the user does not answer")
        answer = ", ".join(decision["answers"][0]["values"])
        item["tool_call"]["result"] = [{"text": answer}]
        return self._complete(item, "COMPLETED", answer)

    async def _unknown(self, action: Json, item: Json) -> str:
        item["tool_call"] = {"tool": action.get("name", action["kind"]), "arguments_json": json.dumps(action)}
        self._start(item)
        item["tool_call"]["error"] = "there is no such tool"
        return self._complete(item, "FAILED", "there is no such tool")

    async def _permit(self, item: Json, **more: object) -> Json:
        """Return the decision about an item, or decline it."""
        if self._policy == "APPROVAL_POLICY_PLAN":
            raise Declined("a plan is asked for: nothing may be changed")
        if self._policy not in ASKING:
            return {}
        decision = await self._wire.ask(**item, **more)
        if decision["kind"] not in _ALLOWED:
            raise Declined(decision.get("message") or "the user does not want this")
        return decision

    def _start(self, item: Json) -> None:
        self._wire.emit("item_started", {"item": {**item, "status": "ITEM_STATUS_IN_PROGRESS"}})

    def _complete(self, item: Json, status: str, told: str) -> str:
        self._wire.emit("item_completed", {"item": {**item, "status": f"ITEM_STATUS_{status}"}})
        return told
