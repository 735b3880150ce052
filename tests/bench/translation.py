"""What the translation of a vendor's messages costs, beside what the vendor's SDK spends on reading the same ones.

The messages are those of a real turn of the real CLI, asked for with ``include_raw``.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from claude_agent_sdk._internal.message_parser import parse_message
from openai_codex.client import CodexClient

from alive.agent.v1 import options_pb2
from alive_claude.events import Translator as ClaudeTranslator
from alive_claude.messages import Received
from alive_codex.app_server import Notification
from alive_codex.events import Translator as CodexTranslator
from alive_kit.testing.fakes import spec
from alive_kit.testing.scripted_model import Reply

from .row import Row, compare
from .system import System, system

_ROUNDS = 15


async def measure(*, short: bool) -> list[Row]:
    """Measure each provider."""
    async with system() as running:
        claude, codex = await _recorded(running, "claude"), await _recorded(running, "codex")
    return [
        _row("claude: translation per message, µs", claude, _translate_claude, _read_claude),
        _row("codex: translation per message, µs", codex, _translate_codex, _read_codex),
    ]


async def _recorded(running: System, name: str) -> list[str]:
    """Return the messages of a turn of four hundred deltas, as the CLI said them."""
    prompt = await running.script(f"{name}-long", Reply(text="word " * 400, chunk=5))
    delivery = options_pb2.Delivery(include_raw=True)
    events = await running.caller.run(prompt, provider_id=name, workspace_id="bench", delivery=delivery)
    return list(dict.fromkeys(event.raw_json for event in events if event.raw_json))


def _row(
    name: str, lines: list[str], translate: Callable[[list[Any]], None], parse: Callable[[list[Any]], None]
) -> Row:
    messages = [json.loads(line) for line in lines]
    ours, theirs = [], []
    for _ in range(_ROUNDS):
        ours.append(_timed(translate, messages))
        theirs.append(_timed(parse, lines))
    return compare(name, ours, theirs, "the SDK reading its line", goal=3.0)


def _timed(work: Callable[[Any], None], messages: list[Any]) -> float:
    began = time.process_time()
    work(messages)
    return (time.process_time() - began) / len(messages) * 1e6


def _translate_claude(messages: list[Any]) -> None:
    translator = ClaudeTranslator(spec(), set())
    for message in messages:
        for event in translator.translate(Received(raw=message, message=parse_message(message))):
            event.SerializeToString()


def _read_claude(lines: list[str]) -> None:
    for line in lines:
        parse_message(json.loads(line))


def _translate_codex(messages: list[Any]) -> None:
    translator = CodexTranslator(spec(), "m", options_pb2.SANDBOX_WORKSPACE_WRITE)
    for message in messages:
        for event in translator.translate(Notification(method=message["method"], params=message["params"])):
            event.SerializeToString()


def _read_codex(lines: list[str]) -> None:
    client = CodexClient()
    for line in lines:
        message = json.loads(line)
        client._coerce_notification(message["method"], message["params"])
