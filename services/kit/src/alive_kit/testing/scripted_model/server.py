"""The server: finds the script of a request, keeps the journal, and sends the reply or the fault."""

import asyncio
import contextlib
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from alive_kit.testing.scripted_model.anthropic import Anthropic
from alive_kit.testing.scripted_model.demo import DEMO
from alive_kit.testing.scripted_model.journal import Entry, Journal
from alive_kit.testing.scripted_model.openai import OpenAI
from alive_kit.testing.scripted_model.plain import Plain
from alive_kit.testing.scripted_model.script import SCRIPT, Fault, Reply, Script
from alive_kit.testing.scripted_model.wire import Dialect

DEFAULT = "default"
"""The script of requests that name none."""

BODY_BYTES = 64 << 20

_MARKER = re.compile(r"\[script:([A-Za-z0-9_.-]+)\]")


class ScriptedModel:
    """The scripted model, in this process.

    A request belongs to the script named by its path (``/s/<name>/v1/...``), else by ``[script:<name>]`` in the
    newest input that has one, else to the default one. Each session of the vendor goes through its script on its own.
    """

    def __init__(self, *, key: str = "", host: str = "127.0.0.1", port: int = 0) -> None:
        self.journal = Journal()
        self._key = key
        self._address = (host, port)
        self._scripts: dict[str, Script] = {DEFAULT: DEMO}
        self._next: dict[tuple[str, str], int] = defaultdict(int)
        self._released = asyncio.Event()
        self._runner = web.AppRunner(self._app(), handler_cancellation=True, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, *self._address)
        await site.start()
        self._address = self._runner.addresses[0][:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The base URL for Anthropic's clients; OpenAI's get it with ``/v1``."""
        return f"http://{self._address[0]}:{self._address[1]}"

    async def serve_at(self, path: Path) -> None:
        """Serve on a unix socket too, for those who have no network."""
        await web.UnixSite(self._runner, str(path)).start()
        path.chmod(0o666)  # noqa: ASYNC240  # At once.

    def script(self, name: str, replies: Iterable[Reply] | Script) -> str:
        """Set a script and return the marker that makes a prompt use it."""
        self._scripts[name] = replies if isinstance(replies, Script) else Script(replies=list(replies))
        return f"[script:{name}]"

    def release(self) -> None:
        """Let every stalled reply go on, now and from now on."""
        self._released.set()

    async def arrived(self, script: str, count: int = 1, *, seconds: float = 10.0) -> list[Entry]:
        """Return a script's requests once there are so many."""
        await self.journal.wait(lambda: len(self.journal.entries(script)) >= count, seconds=seconds)
        return self.journal.entries(script)

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES)
        for prefix in ("", "/s/{script}"):
            app.router.add_post(f"{prefix}/v1/messages", self._answer_with(Anthropic()))
            app.router.add_post(f"{prefix}/v1/messages/count_tokens", self._count_tokens)
            app.router.add_post(f"{prefix}/v1/responses", self._answer_with(OpenAI()))
            app.router.add_post(f"{prefix}/v1/plain", self._answer_with(Plain()))
        app.router.add_put("/control/scripts/{script}", self._put_script)
        app.router.add_get("/control/journal", self._get_journal)
        app.router.add_post("/control/release", self._post_release)
        app.router.add_get("/control/health", self._get_health)
        return app

    def _answer_with(self, dialect: Dialect) -> Any:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._answer(dialect, request)

        return answer

    async def _answer(self, dialect: Dialect, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body: dict[str, Any] = await request.json()
        name = request.match_info.get("script") or _marked(dialect.inputs(body)) or DEFAULT
        session = dialect.session(headers, body)
        entry = await self.journal.add(script=name, session=session, path=request.path_qs, headers=headers, body=body)
        if self._key and not _has_key(headers, self._key):
            return web.json_response(dialect.error(Fault(status=401)), status=401)
        if name not in self._scripts:
            fault = Fault(status=404, code=f"no script {name!r}: there is {', '.join(sorted(self._scripts))}")
            return web.json_response(dialect.error(fault), status=404)
        reply = Reply() if dialect.is_side_request(body) else self._take(name, session)
        try:
            return await self._send(dialect, request, body, reply)
        except (asyncio.CancelledError, ConnectionResetError):
            entry.abandoned = True
            raise
        finally:
            entry.answered = not entry.abandoned
            await self.journal.touch()

    def _take(self, name: str, session: str) -> Reply:
        index = self._next[name, session]
        self._next[name, session] += 1
        return self._scripts[name].reply(index)

    async def _send(
        self, dialect: Dialect, request: web.Request, body: dict[str, Any], reply: Reply
    ) -> web.StreamResponse:
        fault = reply.fault or Fault()
        if fault.status:
            return web.json_response(dialect.error(fault), status=fault.status, headers=fault.headers)
        if fault.stall_after == 0 and not fault.answered:
            await self._released.wait()
        if fault.drop_after == 0 and not fault.answered:
            return _break(request)
        if not body.get("stream"):
            return self._whole(dialect, request, body, reply)
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **fault.headers})
        await response.prepare(request)
        return await self._stream(dialect, request, response, body, reply)

    def _whole(self, dialect: Dialect, request: web.Request, body: dict[str, Any], reply: Reply) -> web.StreamResponse:
        fault = reply.fault or Fault()
        if fault.drop_after >= 0:
            return _break(request)
        if fault.error_after >= 0:
            return web.json_response(dialect.error(fault), status=500)
        return web.json_response(dialect.whole(body, reply))

    async def _stream(
        self,
        dialect: Dialect,
        request: web.Request,
        response: web.StreamResponse,
        body: dict[str, Any],
        reply: Reply,
    ) -> web.StreamResponse:
        fault, deltas = reply.fault or Fault(), 0
        if await self._broke(dialect, request, response, fault, deltas):
            return response
        for sent in dialect.stream(body, reply):
            if sent.is_delta and reply.gap:
                await asyncio.sleep(reply.gap)
            await response.write(sent.data)
            deltas += sent.is_delta
            if sent.is_delta and await self._broke(dialect, request, response, fault, deltas):
                return response
        await response.write_eof()
        return response

    async def _broke(
        self, dialect: Dialect, request: web.Request, response: web.StreamResponse, fault: Fault, deltas: int
    ) -> bool:
        """Do what a fault has for this many deltas; return whether the stream is over with it."""
        if deltas == fault.stall_after:
            await self._released.wait()
        if deltas == fault.error_after:
            await response.write(dialect.error_event(fault))
        elif deltas == fault.drop_after:
            _break(request)
        return deltas in {fault.error_after, fault.drop_after}

    async def _count_tokens(self, _request: web.Request) -> web.Response:
        return web.json_response({"input_tokens": 100})

    async def _put_script(self, request: web.Request) -> web.Response:
        self.script(request.match_info["script"], SCRIPT.validate_json(await request.read()))
        return web.json_response({})

    async def _get_journal(self, request: web.Request) -> web.Response:
        """Answer with a script's requests, once there are as many as asked for."""
        name, count = request.query.get("script"), int(request.query.get("count", "0"))
        with contextlib.suppress(TimeoutError):
            await self.journal.wait(lambda: len(self.journal.entries(name)) >= count)
        return web.json_response([vars(entry) for entry in self.journal.entries(name)])

    async def _post_release(self, _request: web.Request) -> web.Response:
        self.release()
        return web.json_response({})

    async def _get_health(self, _request: web.Request) -> web.Response:
        return web.json_response({"scripts": sorted(self._scripts)})


def _marked(inputs: Iterable[str]) -> str:
    for text in inputs:
        if found := _MARKER.search(text):
            return found[1]
    return ""


def _has_key(headers: dict[str, str], key: str) -> bool:
    return headers.get("x-api-key") == key or headers.get("authorization") == f"Bearer {key}"


def _break(request: web.Request) -> web.Response:
    """Break the connection without a word."""
    if request.transport:
        request.transport.abort()
    return web.Response()
