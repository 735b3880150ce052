"""The vendors' SDKs driven directly, without anything of ours around them: the rival of warm and cold turns.

Unless they are given a `Launch`: then their CLI starts in a box of ours (`boxed.py`).
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient
from claude_agent_sdk.types import ResultMessage, StreamEvent
from openai_codex.client import CodexClient, CodexConfig

from alive_kit.launch import Launch

from .system import Times


class Bare(Protocol):
    """A vendor's CLI that takes prompts."""

    pid: int

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def ask(self, prompt: str) -> Times:
        """Have a prompt answered, and return how soon it said something."""

    async def first(self, prompt: str) -> None:
        """Have it take a prompt, and return once it says something."""


class BareClaude:
    """Claude Code through claude-agent-sdk."""

    def __init__(self, model_url: str, key: str, home: Path, launch: Launch | None = None) -> None:
        variables = {"ANTHROPIC_BASE_URL": model_url, "ANTHROPIC_API_KEY": key, "HOME": str(home), "IS_SANDBOX": "1"}
        quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CLAUDE_CONFIG_DIR": str(home / ".claude")}
        environment = {**variables, **quiet}
        if launch:
            launch.environment.update(environment)
            environment = launch.variables()
        self._client = ClaudeSDKClient(
            ClaudeAgentOptions(
                cli_path=launch.executable if launch else None,
                cwd=None if launch else str(home),
                env=environment,
                setting_sources=[],
                strict_mcp_config=True,
                permission_mode="bypassPermissions",
                tools=["Read", "Glob", "Grep", "TodoWrite", "Bash", "Edit", "Write", "NotebookEdit", "Agent"],
                system_prompt={"type": "preset", "preset": "claude_code"},
                include_partial_messages=True,
            )
        )
        self.pid = 0

    async def __aenter__(self) -> Self:
        await self._client.connect()
        self.pid = self._client._transport._process.pid  # type: ignore[union-attr]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.disconnect()

    async def ask(self, prompt: str) -> Times:
        """Have a prompt answered, and return how soon it said something."""
        began, first, word = time.perf_counter(), 0.0, 0.0
        await self._client.query(prompt)
        async for message in self._client.receive_response():
            now = (time.perf_counter() - began) * 1e3
            first = first or now
            if isinstance(message, StreamEvent) and message.event["type"] == "content_block_delta":
                word = word or now
            assert not (isinstance(message, ResultMessage) and message.is_error), message
        return Times(event=first, word=word)

    async def first(self, prompt: str) -> None:
        """Have it take a prompt, and return once it says something."""
        await self._client.query(prompt)
        await anext(self._client.receive_response())


class BareCodex:
    """The Codex CLI through openai-codex."""

    def __init__(self, model_url: str, key: str, home: Path, launch: Launch | None = None) -> None:
        self._home, self._launch = home, launch
        self._endpoint = {"name": "bare", "base_url": f"{model_url}/v1", "wire_api": "responses",
                          "experimental_bearer_token": key, "supports_websockets": False}  # fmt: skip
        variables = {"CODEX_HOME": str(home / ".codex"), "HOME": str(home)}
        if launch:
            launch.environment.update(variables)
            launch.hand_over(home / ".codex/config.toml", _CONFIG)
            command = (str(launch.executable), "app-server", "--listen", "stdio://")
            config = CodexConfig(launch_args_override=command, env=launch.variables())
        else:
            config = CodexConfig(env=variables, cwd=str(home))
        self._client = CodexClient(config)
        self._thread_id = ""
        self.pid = 0

    async def __aenter__(self) -> Self:
        if not self._launch:
            (self._home / ".codex").mkdir(exist_ok=True)
            (self._home / ".codex/config.toml").write_text(_CONFIG)
        self._client.start()
        self.pid = self._client._proc.pid  # type: ignore[union-attr]
        await self._call(self._client.initialize)
        config = {
            "model_providers": {"bare": self._endpoint},
            "projects": {str(self._home): {"trust_level": "untrusted"}},
        }
        params = {"cwd": str(self._home), "modelProvider": "bare", "model": "gpt-5.5", "config": config,
                  "approvalPolicy": "never", "sandbox": "workspace-write"}  # fmt: skip
        self._thread_id = (await self._call(lambda: self._client.thread_start(params))).thread.id
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._call(self._client.close)

    async def ask(self, prompt: str) -> Times:
        """Have a prompt answered, and return how soon it said something."""
        return await self._call(lambda: self._ask(prompt))

    async def first(self, prompt: str) -> None:
        """Have it take a prompt, and return once it says something."""
        await self._call(lambda: self._first(prompt))

    def _first(self, prompt: str) -> None:
        turn = self._client.turn_start(self._thread_id, prompt, {}).turn
        self._client.register_turn_notifications(turn.id)
        self._client.next_turn_notification(turn.id)

    def _ask(self, prompt: str) -> Times:
        began, first, word = time.perf_counter(), 0.0, 0.0
        turn = self._client.turn_start(self._thread_id, prompt, {}).turn
        self._client.register_turn_notifications(turn.id)
        while True:
            notification = self._client.next_turn_notification(turn.id)
            now = (time.perf_counter() - began) * 1e3
            first = first or now
            if notification.method == "item/agentMessage/delta":
                word = word or now
            if notification.method == "turn/completed":
                return Times(event=first, word=word)

    async def _call(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, function)


_CONFIG = "[features]\nplugins = false\napps = false\n"

BARE: dict[str, Callable[..., Bare]] = {"claude": BareClaude, "codex": BareCodex}
