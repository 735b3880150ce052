"""The Codex app-server: one process, spoken to from asyncio.

The SDK's client (0.163.0) blocks: a request waits in its thread, and whatever the server asks is answered in the thread
that reads. Here requests wait in threads of this server's own, notifications come in order through one bounded queue,
and nothing the server asks can hold up the reader.
"""

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from openai_codex.client import CodexClient, CodexConfig
from openai_codex.errors import TransportClosedError
from openai_codex.generated.v2_all import TurnStartParams, TurnStartResponse
from openai_codex.models import JsonObject
from pydantic import BaseModel

from alive_kit.launch import Launch

T = TypeVar("T")

CALL_SECONDS = 30.0
"""How long a request may take; the SDK itself would wait for ever."""

_CLOSE_SECONDS = 4.0
_QUEUED = 10_000
_METHOD_NOT_FOUND = -32601


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Something the app-server says by itself."""

    method: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRequest:
    """Something the app-server asks, in its place among what it says."""

    method: str
    params: Mapping[str, Any]
    answer: Callable[[dict[str, Any]], Awaitable[None]]
    """Answers it. Harmless when nobody waits any more."""


Heard = Notification | ServerRequest


class _Empty(BaseModel):
    """An answer that says nothing more."""


class AppServer:
    """A running app-server."""

    def __init__(self, launch: Launch, offered: Container[str] = ()) -> None:
        self._launch = launch
        self._inbox = _Inbox()
        self._loop = asyncio.get_running_loop()
        self._calls = ThreadPoolExecutor(max_workers=3, thread_name_prefix="app-server")
        self._client = _Client(launch, self._inbox, offered)

    async def start(self) -> None:
        """Start the process and greet it."""
        self._client.config.cwd = self._launch.cwd
        self._client.config.env = self._launch.variables()
        # In this thread: the process dies with the thread that started it (see alive-launch).
        self._client.start()
        await self.call(self._client.initialize)

    @property
    def client(self) -> CodexClient:
        """The SDK's client; its methods go through `call`."""
        return self._client

    @property
    def stderr(self) -> str:
        """The last lines the process wrote to stderr."""
        return self._client._stderr_tail()

    async def call(self, method: Callable[..., T], *arguments: Any, seconds: float = CALL_SECONDS) -> T:
        """Call a method of the client without blocking anybody else.

        Raises:
            TimeoutError: there was no answer in time.
        """
        async with asyncio.timeout(seconds):
            return await self._loop.run_in_executor(self._calls, lambda: method(*arguments))

    async def request(self, method: str, params: dict[str, Any]) -> None:
        """Send a request that the SDK has no method for."""
        await self.call(lambda: self._client.request(method, params, response_model=_Empty))

    async def notifications(self) -> AsyncIterator[Heard]:
        """Yield what the app-server says and asks, in order, until it ends."""
        while (message := await self._inbox.take()) is not None:
            if isinstance(message, _Asked):
                answer = partial(self.answer, message.request_id)
                yield ServerRequest(method=message.method, params=message.params, answer=answer)
            else:
                yield message

    async def close(self) -> None:
        """End the process and all that it started."""
        process = self._client._proc
        with contextlib.suppress(Exception):  # The SDK raises BrokenPipeError for a process that died.
            await self.call(self._client.close, seconds=_CLOSE_SECONDS)
        await self._launch.end()
        self._inbox.close()
        if process is not None:
            await self.call(self._client.release, process, seconds=_CLOSE_SECONDS)
        self._calls.shutdown(wait=False)

    async def answer(self, request_id: str | int, result: JsonObject) -> None:
        """Answer something the app-server asked."""
        with contextlib.suppress(OSError, TransportClosedError, RuntimeError):
            await self.call(lambda: self._client._write_message({"id": request_id, "result": result}))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request of the app-server's as it was read."""

    request_id: str | int
    method: str
    params: Mapping[str, Any]


class _Inbox:
    """What the reading thread has read and nobody has taken."""

    def __init__(self) -> None:
        self._room = threading.Semaphore(_QUEUED)
        self._queue: asyncio.Queue[Notification | _Asked | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def put(self, message: "Notification | _Asked | None") -> None:
        """Take what the reading thread read, None at its end; it waits while there is no room."""
        if message is not None:
            self._room.acquire()
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody listens any more.
            self._loop.call_soon_threadsafe(self._queue.put_nowait, message)

    async def take(self) -> "Notification | _Asked | None":
        """Return the next message."""
        message = await self._queue.get()
        self._room.release()
        return message

    def close(self) -> None:
        """Let a reader go on that waits for room that nobody will make any more."""
        self._room.release(_QUEUED)


class _Client(CodexClient):
    """The SDK's client with a reader that waits for nobody but the queue."""

    def __init__(self, launch: Launch, inbox: _Inbox, offered: Container[str]) -> None:
        super().__init__(
            CodexConfig(
                launch_args_override=(str(launch.executable), "app-server", "--listen", "stdio://"),
                client_name="alive_agents",
                client_title="Alive Agents",
            ),
            approval_handler=_unasked,
        )
        self._inbox = inbox
        self._offered = offered

    def turn_start(
        self,
        thread_id: str,
        input_items: list[JsonObject] | JsonObject | str,
        params: TurnStartParams | JsonObject | None = None,
    ) -> TurnStartResponse:
        """Start a turn, whose notifications are heard like all others.

        The SDK (0.163.0) subscribes to every turn by itself. A subscription that nobody ends keeps the failure that
        the reader ends with, by its traceback this client, and by it the subscription: for ever.
        """
        started = super().turn_start(thread_id, input_items, params)
        self.unregister_turn_notifications(started.turn.id)
        return started

    def release(self, process: "subprocess.Popen[str]") -> None:
        """Close what the SDK leaves open of a process that has ended."""
        for thread in (self._reader_thread, self._stderr_thread):
            if thread is not None:
                thread.join()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _reader_loop(self) -> None:
        try:
            while True:
                message = self._read_message()
                if "method" not in message:
                    self._router.route_response(message)
                elif "id" in message and message["method"] in self._offered:
                    self._inbox.put(_asked(message))
                elif "id" in message:
                    self._refuse(message)
                else:
                    self._inbox.put(_notification(message))
        except Exception as error:  # noqa: BLE001  # Whatever it is, nothing more will be read.
            # Without what it passed through: the SDK's queues keep it.
            self._router.fail_all(error.with_traceback(None))
            self._inbox.put(None)

    def _refuse(self, message: dict[str, Any]) -> None:
        """Refuse what the server asks: the SDK would say yes to everything."""
        error: JsonObject = {"code": _METHOD_NOT_FOUND, "message": "not offered"}
        with contextlib.suppress(OSError, TransportClosedError):
            self._write_message({"id": message["id"], "error": error})
        self._inbox.put(Notification(method="serverRequest/refused", params={"method": str(message["method"])}))


def _unasked(method: str, _params: JsonObject | None) -> JsonObject:
    """Stand for the SDK's own answer: a method, which would keep the client alive. Only the SDK's reader asks it."""
    raise NotImplementedError(method)


def _asked(message: Mapping[str, Any]) -> _Asked:
    params = message.get("params")
    return _Asked(
        request_id=message["id"], method=str(message["method"]), params=params if isinstance(params, dict) else {}
    )


def _notification(message: Mapping[str, Any]) -> Notification:
    params = message.get("params")
    return Notification(method=str(message["method"]), params=params if isinstance(params, dict) else {})
