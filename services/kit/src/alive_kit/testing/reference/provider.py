"""The provider's side: starts the agent, says what it can do, and passes on what it says."""

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from alive.agent.v1 import agent_service_pb2, approval_pb2, error_pb2, event_pb2, options_pb2, provider_pb2, usage_pb2
from alive_kit.apis import Apis
from alive_kit.errors import TurnFailure
from alive_kit.events import usage_updated
from alive_kit.failures import failure, reason_of_http_status, turn_error
from alive_kit.inputs import read_image
from alive_kit.launch import Launch
from alive_kit.provider import PLAN_INSTRUCTIONS, Turn, TurnSpec, Unsupported
from alive_kit.resume import Resume
from alive_kit.structured_output import structured_output
from alive_kit.surroundings import NotReady, VendorCli, read_key
from alive_kit.testing.reference.options import MODEL, capabilities, refusals
from alive_kit.testing.reference.prices import PRICES
from alive_kit.testing.reference.tools import FILES, exists
from alive_kit.testing.reference.turn import VERSION
from alive_kit.testing.reference.wire import LINE_BYTES, Json
from alive_kit.usage import Tally
from alive_kit.validation import image_type
from alive_kit.walls import Walls, WallSettings
from alive_kit.workspaces import Workspace

PROGRAM = Path(__file__).with_name("program.py")

_INSTRUCTIONS = "You are a coding agent. You work in one directory, with a shell, files and tools of MCP servers. " * 2
_KEY_VARIABLE = "ALIVE_REFERENCE_API_KEY_FILE"
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


class ReferenceSettings(BaseSettings):
    """The variables the reference provider reads beside those of every service."""

    model_config = SettingsConfigDict(env_prefix="ALIVE_", frozen=True, extra="ignore")

    reference_base_url: str = "http://127.0.0.1:8099"
    """The scripted model: nobody else speaks its dialect."""

    reference_api_key_file: Path | None = None
    """File that holds the key."""

    reference_cli: Path = PROGRAM
    """The agent's program."""

    reference_max_retries: int = Field(default=2, ge=0, le=10)
    """How often the agent asks the model again after an error."""

    reference_silence_seconds: float = Field(default=300.0, gt=0)
    """How long the model may be silent, before its answer and within it."""


class ReferenceAgent:
    """A running agent; it serves one turn."""

    def __init__(self, spec: TurnSpec, launch: Launch) -> None:
        self._spec = spec
        self._launch = launch
        self._process: asyncio.subprocess.Process | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._answer = ""
        self._tally = Tally(PRICES)

    async def start(self, start: Json) -> None:
        """Start the program and tell it what to do.

        Raises:
            TurnFailure: it does not start, has not got the session, or lacks a required MCP server.
        """
        self._process = await asyncio.create_subprocess_exec(
            self._launch.executable,
            env=self._launch.variables(),
            cwd=self._launch.cwd,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
        )
        await self._say(start)
        first = await anext(self._said(), None)
        if first is None:
            raise failure(error_pb2.FAILURE_REASON_SPAWN)
        if "failed" in first:
            raise _failure(first["failed"])

    async def run(self, turn: Turn) -> event_pb2.TurnCompleted | None:
        """Pass on what the agent says, until it has ended."""
        async for said in self._said():
            match said:
                case {"event": event}:
                    self._emit(ParseDict(event, event_pb2.Event()), said, turn)
                case {"used": usage, "model": model}:
                    self._tally.count(str(self._tally.requests), model, ParseDict(usage, usage_pb2.Usage()))
                    self._emit(usage_updated(self._tally.total()), said, turn)
                case {"ask": asked, "id": question}:
                    task = asyncio.create_task(self._ask(asked, question, turn))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                case {"remember": [session, mark]}:
                    turn.remember(session, mark)
                case {"completed": stop_reason}:
                    return self._completed(stop_reason)
                case {"failed": error}:
                    raise _failure(error)
                case {"interrupted": True}:
                    return None
        raise failure(error_pb2.FAILURE_REASON_CRASHED)

    async def interrupt(self) -> None:
        """Ask the agent to stop."""
        await self._say({"interrupt": True})

    async def steer(self, parts: Iterable[options_pb2.InputPart]) -> None:
        """Add input to the running turn."""
        await self._say({"steer": [_part(part, self._spec) for part in parts]})

    async def rest(self) -> bool:
        """Return False: the program ends with its turn."""
        return False

    async def is_ready(self) -> bool:
        """Return False: it never rests."""
        return False

    async def close(self) -> None:
        """End the program and all that it started."""
        for task in self._answering:
            task.cancel()
        await self._launch.end()
        if self._process is not None:
            await self._process.wait()
            if self._process.stdin:
                self._process.stdin.close()

    async def _said(self) -> AsyncIterator[Json]:
        assert self._process
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            yield json.loads(line)

    async def _say(self, said: Json) -> None:
        assert self._process
        assert self._process.stdin
        with contextlib.suppress(ConnectionError):  # What it says last tells why it is gone.
            self._process.stdin.write(json.dumps(said).encode() + b"\n")
            await self._process.stdin.drain()

    async def _ask(self, asked: Json, question: str, turn: Turn) -> None:
        decision = await turn.ask(ParseDict(asked, approval_pb2.ApprovalRequested()))
        await self._say({"answer": MessageToDict(decision, preserving_proto_field_name=True), "id": question})

    def _emit(self, event: event_pb2.Event, said: Json, turn: Turn) -> None:
        if event.item_completed.item.HasField("message"):
            self._answer = event.item_completed.item.message.text
        if self._spec.request.delivery.include_raw:
            event.raw_json = json.dumps(said)
        turn.emit(event)

    def _completed(self, stop_reason: str) -> event_pb2.TurnCompleted:
        completed = event_pb2.TurnCompleted(stop_reason=event_pb2.StopReason.Value(stop_reason))
        if schema := self._spec.request.agent.output_schema:
            completed.structured_output = structured_output(schema, self._answer)
        return completed


class ReferenceProvider:
    """The provider."""

    provider_id = "reference"
    per_turn = ()

    def __init__(self, settings: ReferenceSettings, walls: Walls) -> None:
        self._settings = settings
        self._walls = walls
        self._cli = VendorCli(
            program=settings.reference_cli,
            variable="ALIVE_REFERENCE_CLI",
            says="reference-agent",
            tested=VERSION,
        )

    async def probe(self) -> provider_pb2.ProviderInfo:
        """Look for the program and the key, and describe the provider."""
        info = provider_pb2.ProviderInfo(
            provider_id=self.provider_id,
            vendor="alive",
            display_name="Reference",
            versions=provider_pb2.Versions(service=VERSION),
            readiness=provider_pb2.Readiness(state=provider_pb2.READINESS_STATE_READY),
            capabilities=capabilities(self._walls),
            models=[MODEL],
        )
        try:
            await self._walls.probe()
            info.versions.cli = await self._cli.version(_environment(None))
            read_key(self._settings.reference_api_key_file, _KEY_VARIABLE)
        except NotReady as finding:
            info.readiness.state = provider_pb2.READINESS_STATE_NOT_READY
            info.readiness.reason = str(finding)
        info.wall_level = self._walls.level
        return info

    def unsupported(self, request: agent_service_pb2.StartTurnRequest, resume: Resume | None) -> Iterable[Unsupported]:
        """Yield every option that would not be honoured."""
        return refusals(request, self._walls)

    def has_file_tools(self, request: agent_service_pb2.StartTurnRequest) -> bool:
        """Whether the rules leave any of its own."""
        rules = request.permissions.tools
        return any(exists(name, allowed=rules.allowed, denied=rules.denied) for name in FILES)

    async def start(self, spec: TurnSpec) -> ReferenceAgent:
        """Start the agent for a turn."""
        environment = _environment(spec.workspace)
        launch = self._walls.launch(self._settings.reference_cli, environment, spec.workspace, spec.request.permissions)
        agent = ReferenceAgent(spec, launch)
        try:
            key = spec.token or read_key(self._settings.reference_api_key_file, _KEY_VARIABLE)
            await agent.start(_start(spec, self._settings, key, launch))
        except NotReady as finding:
            raise failure(error_pb2.FAILURE_REASON_AUTH) from finding
        except BaseException:
            await agent.close()
            raise
        return agent

    async def delete(self, workspace: Workspace, native_session: str) -> bool:
        """Delete the agent's memory of a session."""
        await self._walls.delete(workspace, [f".reference/sessions/{native_session}.jsonl"])
        return True


def create_provider() -> ReferenceProvider:
    """Return the provider as its environment describes it."""
    return ReferenceProvider(ReferenceSettings(), Walls(WallSettings(), Apis()))


def _environment(workspace: Workspace | None) -> dict[str, str]:
    """Return everything that the agent sees. The key is not among it."""
    own = {"HOME": str(workspace.home), "TMPDIR": str(workspace.tmp)} if workspace else {"HOME": "/nonexistent"}
    # Its Python is this one, which has the MCP library.
    return {**_ENVIRONMENT, "PATH": f"{Path(sys.prefix) / 'bin'}:{_ENVIRONMENT['PATH']}", **own}


def _start(spec: TurnSpec, settings: ReferenceSettings, key: str, launch: Launch) -> Json:
    """Return what the agent is told: everything, on its standard input."""
    request, prompt = spec.request, spec.request.agent.system_prompt
    policy = request.permissions.approval_policy or options_pb2.APPROVAL_POLICY_BYPASS
    model = request.agent.model or MODEL.model
    base = prompt.replace or _INSTRUCTIONS
    plan = PLAN_INSTRUCTIONS if policy == options_pb2.APPROVAL_POLICY_PLAN else ""
    return {
        "url": settings.reference_base_url,
        "key": key,
        "max_retries": settings.reference_max_retries,
        "silence_seconds": settings.reference_silence_seconds,
        "model": model,
        "effort": request.agent.effort,
        "instructions": "\n\n".join(text for text in (base, prompt.append, spec.project_instructions, plan) if text),
        "policy": options_pb2.ApprovalPolicy.Name(policy),
        "max_turns": request.limits.max_turns,
        "resume": spec.resume and spec.resume.native_session,
        "fork_at": spec.resume and spec.resume.fork_at,
        "is_kept": not request.ephemeral,
        "input": [_part(part, spec) for part in spec.input],
        "rules": _rules(request.permissions.tools),
        "servers": [_server(server, launch) for server in spec.mcp_servers],
        "started": {
            "model": model,
            "resumed": spec.resume is not None,
            "approval_policy": policy,
            "sandbox": request.permissions.sandbox or options_pb2.SANDBOX_FULL_ACCESS,
        },
    }


def _rules(rules: options_pb2.ToolRules) -> Json:
    return {"allowed": list(rules.allowed), "denied": list(rules.denied)}


def _server(server: options_pb2.McpServer, launch: Launch) -> Json:
    fields: Json = {
        "name": server.name,
        "required": server.required,
        "rules": _rules(server.tools),
        "startup_seconds": server.startup_timeout.ToNanoseconds() / 1e9 or 10.0,
        "tool_seconds": server.tool_timeout.ToNanoseconds() / 1e9 or 60.0,
    }
    if server.HasField("http"):
        return {**fields, "url": server.http.url, "headers": dict(server.http.headers)}
    stdio = server.stdio
    return {
        **fields,
        "command": stdio.command,
        "args": list(stdio.args),
        "env": {**stdio.env, **launch.marker},
    }


def _part(part: options_pb2.InputPart, spec: TurnSpec) -> dict[str, Any]:
    match part.WhichOneof("content"):
        case "image":
            data = read_image(part.image, spec.workspace)
            return {"image": {"mime_type": image_type(data), "data": base64.b64encode(data).decode()}}
        case "file":
            return {"text": f"Look at the file {part.file.path}."}
        case _:
            return {"text": part.text}


def _failure(error: Json) -> TurnFailure:
    reason, status = error_pb2.FailureReason.Value(error["reason"]), error.get("http_status")
    seconds = error.get("retry_after")
    return TurnFailure(
        turn_error(
            reason or reason_of_http_status(status or 0),
            http_status=status,
            retries=error.get("retries", 0),
            retry_after=timedelta(seconds=seconds) if seconds else None,
        )
    )
