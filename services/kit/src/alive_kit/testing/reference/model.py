"""The model, as the agent asks it: over HTTP, in a plain dialect of server-sent events."""

import asyncio
import json
import uuid

import aiohttp

from alive_kit.testing.reference.memory import Memory
from alive_kit.testing.reference.wire import Failed, Json, Wire

_SECONDS_BETWEEN = 0.2
"""Between one attempt and the next, unless the model says otherwise."""


class Broken(Exception):
    """A request to the model failed: by an HTTP status, or without one."""

    def __init__(self, *, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(status)
        self.status = status
        self.retry_after = retry_after
        self.may_pass = not status or status == 429 or status >= 500


class Speech:
    """One answer of the model as it is streamed: items of reasoning and text, then actions."""

    def __init__(self, wire: Wire) -> None:
        self.actions: list[Json] = []
        self.text = ""
        self.end: Json = {}
        self._wire = wire
        self._open: Json | None = None

    def hear(self, said: Json) -> None:
        """Take a piece."""
        if "reasoning" in said:
            self._add("reasoning", said["reasoning"], {})
        elif "text" in said:
            self._add("message", said["text"], {"role": "ROLE_AGENT"})
            self.text += said["text"]
        elif "error" in said:
            raise Broken
        else:
            self.close("ITEM_STATUS_COMPLETED")
            self.actions += [said["action"]] if "action" in said else []
            self.end = said.get("end", self.end)

    def retract(self) -> None:
        """Take back what was said: the connection broke."""
        if self._open:
            retracted = {"item_id": self._open["item_id"], "reason": "the connection to the model broke"}
            self._wire.emit("item_retracted", retracted)
            self.close("ITEM_STATUS_FAILED")

    def close(self, status: str) -> None:
        """End the item that is open."""
        if self._open:
            self._wire.emit("item_completed", {"item": {**self._open, "status": status}})
            self._open = None

    def _add(self, kind: str, text: str, fields: Json) -> None:
        if self._open is None or kind not in self._open:
            self.close("ITEM_STATUS_COMPLETED")
            self._open = {"item_id": uuid.uuid4().hex, kind: {**fields, "text": ""}}
            self._wire.emit("item_started", {"item": {**self._open, "status": "ITEM_STATUS_IN_PROGRESS"}})
        self._open[kind]["text"] += text
        self._wire.emit("item_delta", {"item_id": self._open["item_id"], "text": text})


class Model:
    """The model, over HTTP: a plain dialect of server-sent events."""

    def __init__(self, start: Json, wire: Wire, http: aiohttp.ClientSession, offered: list[str]) -> None:
        self._start = start
        self._wire = wire
        self._http = http
        self._tools = [{"name": name} for name in offered]

    async def answer(self, memory: Memory) -> Speech:
        """Return the model's answer to what was said; ask again where that may help."""
        for attempt in range(1, self._start["max_retries"] + 2):
            speech = Speech(self._wire)
            try:
                await self._ask(memory, speech)
            except (aiohttp.ClientError, Broken) as error:
                broken = error if isinstance(error, Broken) else Broken()
                if attempt > self._start["max_retries"] or not broken.may_pass:
                    speech.close("ITEM_STATUS_FAILED")
                    raise self._failed(broken, attempt - 1) from error
                speech.retract()
                await self._wait(attempt, broken)
            else:
                self._wire.say(used=speech.end["usage"], model=self._start["model"])
                return speech
        raise AssertionError

    async def _ask(self, memory: Memory, speech: Speech) -> None:
        body = {
            **{name: self._start[name] for name in ("model", "effort", "instructions")},
            "session": memory.session,
            "stream": True,
            "tools": self._tools,
            "messages": memory.messages,
        }
        headers = {"authorization": f"Bearer {self._start['key']}"}
        async with self._http.post(f"{self._start['url']}/v1/plain", json=body, headers=headers) as response:
            if response.status >= 400:
                raise Broken(status=response.status, retry_after=float(response.headers.get("retry-after", 0)))
            async for line in response.content:
                if line.startswith(b"data: "):
                    speech.hear(json.loads(line.removeprefix(b"data: ")))
        if not speech.end:
            raise Broken

    async def _wait(self, attempt: int, broken: Broken) -> None:
        seconds = broken.retry_after or _SECONDS_BETWEEN
        retry = {"attempt": attempt, "max_attempts": self._start["max_retries"], "delay": f"{seconds}s"}
        message = "The request to the model failed; asking again."
        notice = {"severity": "SEVERITY_WARNING", "code": "model_retry", "message": message, "retry": retry}
        self._wire.emit("notice", notice)
        await asyncio.sleep(seconds)

    def _failed(self, broken: Broken, retries: int) -> Failed:
        message = "The request to the model failed."
        self._wire.emit("notice", {"severity": "SEVERITY_WARNING", "code": "model_error", "message": message})
        if not broken.status:
            return Failed("NETWORK", retries=retries)
        return Failed(http_status=broken.status, retry_after=broken.retry_after, retries=retries)
