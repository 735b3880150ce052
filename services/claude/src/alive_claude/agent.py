"""One running Claude Code: its turns, their interrupts, its end."""

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any

from claude_agent_sdk import AssistantMessage, ClaudeSDKClient, ResultMessage

from alive.agent.v1 import error_pb2, event_pb2, options_pb2
from alive_claude.approvals import Asking
from alive_claude.contained import leaves_no_trace, tools_called
from alive_claude.environment import startup_seconds
from alive_claude.events import Translator
from alive_claude.failures import of_exception, of_result
from alive_claude.messages import Received, answer_elicitations, receive
from alive_claude.options import WEB, asks, cli_options, may_use
from alive_claude.prompt import user_message
from alive_claude.steering import KIND, Steering
from alive_kit.errors import TurnEnded, TurnFailure
from alive_kit.failures import failure
from alive_kit.fairness import Slice
from alive_kit.launch import Launch
from alive_kit.provider import Turn, TurnSpec
from alive_kit.structured_output import structured_output

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 30.0
_DISCONNECT_SECONDS = 2.0
_READY_SECONDS = 1.0
_MCP_POLL_SECONDS = 0.05

_STATEMENTS = (AssistantMessage, ResultMessage)

_STOP_REASONS = {
    "max_tokens": event_pb2.STOP_REASON_MAX_TOKENS,
    "refusal": event_pb2.STOP_REASON_REFUSAL,
}


class ClaudeAgent:
    """A CLI that serves the turns of one session."""

    def __init__(self, spec: TurnSpec, launch: Launch) -> None:
        self._spec = spec
        self._launch = launch
        self._stderr: deque[str] = deque(maxlen=50)
        self._asking = Asking(
            spec.workspace,
            asks=asks(spec.request),
            may_use=partial(may_use, spec.request),
            is_read_only=self._is_read_only,
        )
        options = cli_options(spec, launch, self._stderr.append, self._asking.can_use_tool)
        self._client = ClaudeSDKClient(options)
        self._translator = Translator(spec, self._asking.denied)
        self._serving = spec
        self._steering: Steering | None = None
        """While a turn runs: what is added to it."""
        self._mark = ""
        self._model = spec.request.agent.model
        self._servers: dict[str, str] = {}
        self._state: Mapping[str, Any] = {}
        """What the CLI said of itself when it began its latest turn; empty when it may say something else now."""
        self._is_resting = False
        self._is_untouched = True

    async def connect(self) -> None:
        """Start the CLI and wait for its MCP servers.

        Raises:
            TurnFailure: it does not start, or a required server does not.
        """
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._client.connect()
        except TimeoutError as error:
            raise failure(error_pb2.FAILURE_REASON_SPAWN, stderr=self._said) from error
        except Exception as error:
            logger.warning("the CLI does not start: %s: %s", error, self._said)
            raise of_exception(error, self._said, started=False) from error
        answer_elicitations(self._client, self._asking.elicit)
        try:
            await self._wait_for_servers()
        except TurnFailure:
            raise
        except Exception as error:
            logger.warning("the CLI ended: %s", self._said, exc_info=error)
            raise of_exception(error, self._said, started=True) from error
        self._launch.take_back()
        await self._launch.mark()

    async def run(self, turn: Turn) -> event_pb2.TurnCompleted | None:
        """Run a turn to its end."""
        self._asking.begin(turn)
        self._serving, self._steering = turn.spec, Steering()
        self._translator = Translator(turn.spec, self._asking.denied)
        include_raw = turn.spec.request.delivery.include_raw
        time_slice = Slice()
        try:
            await self._use_model(turn.spec.request.agent.model)
            await self._client.query(user_message(turn.spec.input, turn.spec))
            if self._state and not include_raw:
                for event in self._translator.begin(self._state):
                    turn.emit(event)
            async for received in self._heard():
                self._is_untouched &= all(leaves_no_trace(tool, self._spec) for tool in tools_called(received.raw))
                if isinstance(received.message, _STATEMENTS):
                    # Not before: until it has an answer to write, the CLI keeps nothing that could be resumed.
                    self._remember(turn, received.raw)
                for event in self._translator.translate(received):
                    if include_raw:
                        event.raw_json = json.dumps(received.raw, ensure_ascii=False)
                    turn.emit(event)
                await time_slice.share()
                if isinstance(received.message, ResultMessage) and not self._goes_on(received.message):
                    return self._completed(received.message, turn.spec)
        except TurnFailure:
            raise
        except Exception as error:
            logger.warning("the CLI ended: %s", self._said, exc_info=error)
            raise of_exception(error, self._said, started=True) from error
        finally:
            self._steering = None
        raise failure(error_pb2.FAILURE_REASON_CRASHED, stderr=self._said)

    async def interrupt(self) -> None:
        """Ask the CLI to stop."""
        self._translator.is_interrupted = True
        await self._client.interrupt()

    async def steer(self, parts: Iterable[options_pb2.InputPart]) -> None:
        """Have the CLI tell the model something more.

        Raises:
            TurnEnded: the CLI has given its answer.
        """
        steering = self._steering
        if steering is None:
            raise TurnEnded(self._serving.request.turn_id)
        message_id = steering.add()
        try:
            await self._client.query(user_message(parts, self._serving, message_id))
        except BaseException:
            steering.drop(message_id)
            raise

    async def rest(self) -> bool:
        """Return whether the CLI may wait: no program of the model's ran beside it, and none is left in its box."""
        self._asking.turn = None
        self._is_resting = True
        self._stderr.clear()
        return self._is_untouched and await self._launch.sweep()

    async def is_ready(self) -> bool:
        """Ask the CLI how its MCP servers are: as they were when it started."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                return await self._statuses() == self._servers
        except Exception as error:  # noqa: BLE001  # Whatever it is, another CLI is started.
            logger.info("a warm CLI is not used again: %r", error)
            return False

    async def close(self) -> None:
        """End the CLI, gently first so that it finishes writing the session, and all that it started."""
        try:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_DISCONNECT_SECONDS):
                    await self._client.disconnect()
        finally:
            self._asking.close()
            await self._launch.end()

    def _remember(self, turn: Turn, raw: Mapping[str, Any]) -> None:
        """Keep the CLI's id of the session, and of the latest answer: what it writes last, where a fork begins."""
        if raw["type"] == "assistant" and not raw.get("parent_tool_use_id"):
            self._mark = str(raw.get("uuid", ""))
        turn.remember(str(raw["session_id"]), self._mark)

    @property
    def _said(self) -> str:
        return "\n".join(self._stderr)

    async def _use_model(self, model: str) -> None:
        if model != self._model:
            await self._client.set_model(model or None)
            self._model, self._state = model, {}

    async def _heard(self) -> AsyncIterator[Received]:
        """Yield what the CLI says of a turn: it begins each with its state; what comes before is of an earlier one.

        It begins anew to answer what was added late; that is the same turn.
        """
        has_begun, is_answered = not self._is_resting, False
        async for received in receive(self._client):
            if received.kind == "system/init":
                has_begun, self._state = True, received.raw
            if received.kind == KIND and self._steering:
                self._steering.hear(received.raw)
            elif has_begun and not (is_answered and received.kind == "system/init"):
                is_answered |= isinstance(received.message, ResultMessage)
                yield received

    def _goes_on(self, result: ResultMessage) -> bool:
        """Whether the CLI has more to answer; what fails or was stopped ends all of the turn."""
        is_due = self._steering is not None and self._steering.is_due
        return is_due and not (result.is_error or self._is_stopped(result))

    def _is_stopped(self, result: ResultMessage) -> bool:
        is_aborted = str(getattr(result, "terminal_reason", "")).startswith("aborted")
        return self._translator.is_interrupted or is_aborted

    async def _wait_for_servers(self) -> None:
        """Wait until every MCP server has started or not, before the model is asked.

        Raises:
            TurnFailure: a required one has not.
        """
        if not self._spec.mcp_servers:
            return
        bound = max(map(startup_seconds, self._spec.mcp_servers))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bound):
                while "pending" in (await self._statuses()).values():
                    await asyncio.sleep(_MCP_POLL_SECONDS)  # The CLI can be asked, but does not tell.
        self._servers = await self._statuses()
        required = [server.name for server in self._spec.mcp_servers if server.required]
        if any(self._servers[name] != "connected" for name in required):
            raise failure(error_pb2.FAILURE_REASON_MCP, stderr=self._said)

    async def _is_read_only(self, name: str) -> bool:
        """Whether a tool only reads: the web, or as a tool of an MCP server says of itself."""
        if not name.startswith("mcp__"):
            return name in WEB
        server_name, _, tool_name = name.removeprefix("mcp__").partition("__")
        status = await self._client.get_mcp_status()
        tools = [tool for server in status["mcpServers"] if server["name"] == server_name for tool in server["tools"]]
        return any(tool["name"] == tool_name and tool.get("annotations", {}).get("readOnly") for tool in tools)

    async def _statuses(self) -> dict[str, str]:
        """Return how the CLI says its MCP servers are, by name."""
        status = await self._client.get_mcp_status()
        found: dict[str, str] = {server["name"]: server["status"] for server in status["mcpServers"]}
        return {server.name: found.get(server.name, "failed") for server in self._spec.mcp_servers}

    def _completed(self, result: ResultMessage, spec: TurnSpec) -> event_pb2.TurnCompleted | None:
        if self._is_stopped(result):
            return None
        completed = event_pb2.TurnCompleted(stop_reason=self._stop_reason(result))
        if schema := spec.request.agent.output_schema:
            output = result.structured_output
            completed.structured_output = structured_output(schema, "" if output is None else json.dumps(output))
        return completed

    def _stop_reason(self, result: ResultMessage) -> "event_pb2.StopReason.ValueType":
        """Return why a turn stopped that has an answer, if only the beginning of one."""
        translator = self._translator
        if translator.answer and result.subtype == "error_max_turns":
            return event_pb2.STOP_REASON_MAX_TURNS
        if translator.answer and translator.vendor_error == "max_output_tokens":
            return event_pb2.STOP_REASON_MAX_TOKENS
        if result.is_error:
            raise of_result(result, translator.vendor_error, translator.retries, self._said)
        return _STOP_REASONS.get(result.stop_reason or "", event_pb2.STOP_REASON_END_TURN)
