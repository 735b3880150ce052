"""A first and a following turn, from the prompt to the first word, boxed and behind the router; and the bare SDKs."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, StreamEvent
from openai_codex.client import CodexClient, CodexConfig

from alive_kit.testing.scripted_model import Reply

from ..conformance.conftest import KEY
from .agents import Agents, agents
from .row import Row, absent, compare

Times = tuple[float, float]
"""Milliseconds to the first word of a first and of a following turn."""

Bare = Callable[[str, str, Path], Awaitable[Times]]


async def measure(*, short: bool) -> list[Row]:
    """Measure each provider against its bare SDK, with the same model."""
    rows = []
    async with agents() as running:
        for name, bare in (("claude", _bare_claude), ("codex", _bare_codex)):
            try:
                rows += await _compared(running, name, bare, 2 if short else 7)
            except Exception as error:  # noqa: BLE001  # A vendor's SDK that does not start here is a row that says so.
                rows.append(absent(f"{name}: turns", "bare SDK", repr(error)[-80:]))
    return rows


async def _compared(running: Agents, name: str, bare: Bare, rounds: int) -> list[Row]:
    prompt = running.model.script(f"{name}-turn", [Reply(text="Some words to say.", chunk=4, repeat=1_000)]) + " go"
    ours, rival = [], []
    for _ in range(rounds):
        ours.append(await _ours(running, name, prompt))
        with tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True) as home:
            rival.append(await bare(prompt, running.model.url, Path(home)))
    return [
        compare(f"{name}: {what} turn to the first word, ms", own, other, "bare SDK", goal=1.1)
        for what, own, other in zip(
            ("cold", "following"), zip(*ours, strict=True), zip(*rival, strict=True), strict=True
        )
    ]


async def _ours(running: Agents, name: str, prompt: str) -> Times:
    times, session_id = [], ""
    for _ in range(2):
        began = time.perf_counter()
        call = running.caller.start(prompt, provider_id=name, session_id=session_id)
        async for response in call:
            for event in response.events:
                session_id = event.session_id
                if event.HasField("item_delta") and len(times) < 2 and began:
                    times.append((time.perf_counter() - began) * 1e3)
                    began = 0.0
    return times[0], times[1]


async def _bare_claude(prompt: str, url: str, home: Path) -> Times:
    variables = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY, "HOME": str(home), "IS_SANDBOX": "1"}
    quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CLAUDE_CONFIG_DIR": str(home / ".claude")}
    options = ClaudeAgentOptions(env={**variables, **quiet}, cwd=home, include_partial_messages=True)
    began, times = time.perf_counter(), []
    async with ClaudeSDKClient(options) as client:
        for _ in range(2):
            await client.query(prompt)
            is_first = True
            async for message in client.receive_response():
                if is_first and isinstance(message, StreamEvent) and message.event["type"] == "content_block_delta":
                    times.append((time.perf_counter() - began) * 1e3)
                    is_first = False
            began = time.perf_counter()
    return times[0], times[1]


async def _bare_codex(prompt: str, url: str, home: Path) -> Times:
    return await asyncio.to_thread(_codex_turns, prompt, url, home)


def _codex_turns(prompt: str, url: str, home: Path) -> Times:
    (home / "config.toml").write_text(
        f'model = "gpt-5"\nmodel_provider = "bench"\n[model_providers.bench]\nname = "bench"\nbase_url = "{url}/v1"\n'
        'wire_api = "responses"\nenv_key = "OPENAI_API_KEY"\n'
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "CODEX_HOME": str(home), "OPENAI_API_KEY": KEY}
    began, times = time.perf_counter(), []
    with _codex(CodexConfig(cwd=str(home), env=environment)) as client:
        thread = client.thread_start({"cwd": str(home)}).thread.id
        for _ in range(2):
            turn_id = client.turn_start(thread, [{"type": "text", "text": prompt}]).turn.id
            is_first = True
            while (said := client.next_turn_notification(turn_id)).method != "turn/completed":
                if is_first and said.method == "item/agentMessage/delta":
                    times.append((time.perf_counter() - began) * 1e3)
                    is_first = False
            began = time.perf_counter()
    return times[0], times[1]


@contextlib.contextmanager
def _codex(config: CodexConfig) -> Iterator[CodexClient]:
    client = CodexClient(config)
    client.start()
    try:
        client.initialize()
        yield client
    finally:
        client.close()
