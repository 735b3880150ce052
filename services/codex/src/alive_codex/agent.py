"""One running Codex: its turns, their interrupts, its end."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any

from alive.agent.v1 import error_pb2, event_pb2, options_pb2
from alive_codex.app_server import AppServer, Heard, Notification, ServerRequest
from alive_codex.approvals import OFFERED, Asking
from alive_codex.contained import Trace
from alive_codex.events import USAGE, Translator
from alive_codex.failures import is_cut, of_thread, of_turn
from alive_codex.options import asks, is_walled, sandbox_of, turn_input, turn_params, turn_part
from alive_kit.failures import failure
from alive_kit.fairness import Slice
from alive_kit.launch import Launch
from alive_kit.provider import Turn, TurnSpec
from alive_kit.structured_output import structured_output
from alive_kit.walls import WallLevel

logger = logging.getLogger(__name__)

_MCP_SECONDS = 10.0
_READY_SECONDS = 1.0


class CodexAgent:
    """An app-server that serves the turns of one thread."""

    def __init__(self, spec: TurnSpec, launch: Launch, *, level: WallLevel) -> None:
        self._spec = spec
        self._launch = launch
        self._level = level
        self._trace = Trace(spec, is_walled=is_walled(spec.request, level))
        self._server = AppServer(launch, OFFERED if asks(spec.request) else ())
        self._early: list[Heard] = []
        self._asked: set[asyncio.Task[None]] = set()
        self._notifications: AsyncIterator[Heard] = self._server.notifications()
        self._model = ""
        self._translator = self._translating(spec)
        self.thread_id = ""
        """Codex's own id of the session."""
        self._turn_id: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reached_max_turns = False

    async def start(self) -> None:
        """Start the app-server.

        Raises:
            TurnFailure: it does not start.
        """
        try:
            await self._server.start()
        except Exception as error:
            logger.warning("the CLI does not start: %s: %s", error, self._server.stderr)
            raise of_thread(error, self._server.stderr) from error

    async def open(self, params: dict[str, Any]) -> None:
        """Open or resume the session's thread.

        Raises:
            TurnFailure: the thread is gone, or a required MCP server does not start.
        """
        try:
            thread = await self._open_thread(params)
        except Exception as error:
            logger.warning("no thread: %s: %s", error, self._server.stderr)
            raise of_thread(error, self._server.stderr) from error
        self.thread_id = thread.thread.id
        self._model = thread.model
        await self._wait_for_servers()
        await self._launch.mark()

    async def run(self, turn: Turn) -> event_pb2.TurnCompleted | None:
        """Run a turn to its end."""
        self._begin(turn.spec)
        try:
            client = self._server.client
            call = self._server.call(client.turn_start, self.thread_id, turn_input(turn.spec), turn_params(turn.spec))
            answer, _ = await asyncio.gather(call, self._tell_started(turn))
        except Exception as error:
            logger.warning("the turn does not start: %s: %s", error, self._server.stderr)
            raise failure(error_pb2.FAILURE_REASON_CRASHED, stderr=self._server.stderr) from error
        self._turn_id.set_result(answer.turn.id)
        turn.remember(self.thread_id, answer.turn.id)
        asking, time_slice = Asking(turn.spec.workspace, self._translator.open_items), Slice()
        async for notification in self._heard(answer.turn.id):
            if isinstance(notification, ServerRequest):
                self._ask(asking.answer(notification, turn))
                continue
            self._trace.hear(notification)
            self._emit(notification, turn)
            await time_slice.share()
            if notification.method == "turn/completed" and notification.params["turn"]["id"] == answer.turn.id:
                return self._completed(notification.params["turn"], turn.spec)
            if self._has_reached_max_turns(turn.spec.request.limits):
                self._reached_max_turns = True
                await self.interrupt()
        raise failure(error_pb2.FAILURE_REASON_CRASHED, stderr=self._server.stderr)

    async def _tell_started(self, turn: Turn) -> None:
        """Say that the turn has started, as soon as Codex has the prompt, where all that there is to say is known."""
        if not self._early and not turn.spec.request.delivery.include_raw:
            turn.emit(self._translator.begin())

    async def interrupt(self) -> None:
        """Ask Codex to stop, and end the commands that it would leave running."""
        turn_id = await self._turn_id
        await self._server.call(self._server.client.turn_interrupt, self.thread_id, turn_id)
        with contextlib.suppress(Exception):
            await self._end_commands()

    async def steer(self, parts: Iterable[options_pb2.InputPart]) -> None:
        """Add input to the running turn."""
        turn_id = await self._turn_id
        added = [turn_part(part, self._translator.spec) for part in parts]
        await self._server.call(self._server.client.turn_steer, self.thread_id, turn_id, added)

    async def rest(self) -> bool:
        """End the commands that Codex would leave running; return whether it may wait: none ran outside its sandbox."""
        if not self._trace.is_clean:
            return False
        self._end_asking()
        try:
            await self._end_commands()
        except Exception as error:  # noqa: BLE001  # Whatever it is, another CLI is started.
            logger.info("a CLI is not kept warm: %r", error)
            return False
        return await self._launch.sweep()

    async def is_ready(self) -> bool:
        """Ask for something cheap, and look for the MCP servers: Codex does not start them again (0.163.0)."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._end_commands()
                has_servers = any(server.HasField("stdio") for server in self._spec.mcp_servers)
                return not has_servers or await self._launch.sweep()
        except Exception as error:  # noqa: BLE001  # Whatever it is, another CLI is started.
            logger.info("a warm CLI is not used again: %r", error)
            return False

    async def close(self) -> None:
        """End the app-server and all that it started."""
        if not self._turn_id.done():
            self._turn_id.cancel()
        self._end_asking()
        await self._server.close()

    def _begin(self, spec: TurnSpec) -> None:
        """Be ready to hear of another turn; what is known of the thread stays."""
        before, self._translator = self._translator, self._translating(spec)
        self._translator.follow(before)
        self._reached_max_turns = False
        if self._turn_id.done():
            self._turn_id = asyncio.get_running_loop().create_future()

    def _translating(self, spec: TurnSpec) -> Translator:
        return Translator(spec, self._model, sandbox_of(spec.request, self._level))

    async def _end_commands(self) -> None:
        await self._server.request("thread/backgroundTerminals/clean", {"threadId": self.thread_id})

    def _end_asking(self) -> None:
        for task in self._asked:
            task.cancel()

    def _ask(self, asking: Coroutine[Any, Any, None]) -> None:
        """Have something asked without holding up what Codex says meanwhile."""
        task = asyncio.create_task(asking)
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _open_thread(self, params: dict[str, Any]) -> Any:
        client, resume = self._server.client, self._spec.resume
        bound = 10.0 + max((_startup_seconds(server) for server in self._spec.mcp_servers), default=0.0)
        if resume and resume.fork_at is not None:
            cut = {"lastTurnId": resume.fork_at} if resume.fork_at else {}
            params = {**params, **cut, "excludeTurns": True}
            return await self._server.call(client.thread_fork, resume.native_session, params, seconds=bound)
        if resume:
            params = {**params, "excludeTurns": True}
            return await self._server.call(client.thread_resume, resume.native_session, params, seconds=bound)
        return await self._server.call(client.thread_start, params, seconds=bound)

    async def _wait_for_servers(self) -> None:
        """Wait until each optional MCP server has started or not: Codex would begin without their tools."""
        waiting = {server.name: _startup_seconds(server) for server in self._spec.mcp_servers}
        if not waiting:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(waiting.values()) + 1.0):
                async for notification in self._notifications:
                    self._early.append(notification)
                    if isinstance(notification, ServerRequest):
                        continue
                    if notification.method == "mcpServer/startupStatus/updated":
                        if notification.params["status"] != "starting":
                            waiting.pop(notification.params["name"], None)
                        if not waiting:
                            return

    async def _heard(self, turn_id: str) -> AsyncIterator[Heard]:
        """Yield what was heard before the turn, then the rest; server states first, for TurnStarted to have them."""
        early, self._early = self._early, []
        for notification in early:
            yield notification
        async for notification in self._notifications:
            params = notification.params
            # What the thread has used is told as of its last turn: what the next one adds is known only by it.
            is_of_turn = params.get("turnId") in {None, turn_id} or notification.method == USAGE
            if params.get("threadId") in {None, self.thread_id} and is_of_turn:
                yield notification

    def _emit(self, notification: Notification, turn: Turn) -> None:
        include_raw = turn.spec.request.delivery.include_raw
        for event in self._translator.translate(notification):
            if include_raw:
                raw = {"method": notification.method, "params": notification.params}
                event.raw_json = json.dumps(raw, ensure_ascii=False)
            turn.emit(event)

    def _has_reached_max_turns(self, limits: options_pb2.Limits) -> bool:
        translator = self._translator
        if not limits.HasField("max_turns") or self._reached_max_turns:
            return False
        return translator.tally.requests >= limits.max_turns and translator.asks_again

    def _completed(self, turn: dict[str, Any], spec: TurnSpec) -> event_pb2.TurnCompleted | None:
        if turn["status"] == "interrupted" and not self._reached_max_turns:
            return None
        completed = event_pb2.TurnCompleted(stop_reason=self._stop_reason(turn))
        if schema := spec.request.agent.output_schema:
            completed.structured_output = structured_output(schema, self._translator.answer)
        return completed

    def _stop_reason(self, turn: dict[str, Any]) -> "event_pb2.StopReason.ValueType":
        """Return why a turn stopped that has an answer, if only the beginning of one."""
        translator, error = self._translator, turn.get("error") or {}
        if self._reached_max_turns:
            if not translator.answer:
                raise failure(error_pb2.FAILURE_REASON_MAX_TURNS)
            return event_pb2.STOP_REASON_MAX_TURNS
        if turn["status"] == "completed":
            return event_pb2.STOP_REASON_END_TURN
        if translator.answer and is_cut(error):
            return event_pb2.STOP_REASON_MAX_TOKENS
        raise of_turn(error, translator.retries, self._server.stderr)


def _startup_seconds(server: options_pb2.McpServer) -> float:
    return server.startup_timeout.ToNanoseconds() / 1e9 or _MCP_SECONDS
