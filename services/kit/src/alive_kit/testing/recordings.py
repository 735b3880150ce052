"""Recordings of turns: the events of a provider, one JSON object a line, as `make recordings` writes them."""

from collections.abc import Iterable
from pathlib import Path

from google.protobuf.json_format import MessageToJson, Parse

from alive.agent.v1 import event_pb2
from alive_kit.claude_messages import Message


def read(path: Path) -> list[event_pb2.Event]:
    """Return a recorded turn."""
    return [Parse(line, event_pb2.Event()) for line in path.read_text().splitlines()]


def write(path: Path, events: Iterable[event_pb2.Event]) -> None:
    """Record a turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{MessageToJson(event, indent=None, sort_keys=True)}\n" for event in events))


def shapes(messages: Iterable[Message]) -> list[tuple[object, ...]]:
    """Return what a front end tells messages apart by: what is said differs from turn to turn, this does not."""
    return [shape for message in messages for shape in _shapes(message)]


def _shapes(message: Message) -> list[tuple[object, ...]]:
    match message["type"]:
        case "assistant" | "user":
            return [
                (message["type"], block["type"], block.get("name", message.get("error", "")), block.get("is_error"))
                for block in message["message"]["content"]
            ]
        case "result":
            return [("result", message["subtype"], message["is_error"], message["stop_reason"])]
        case _ if message.get("subtype") == "informational":
            return []  # What a vendor has to say is its own.
        case kind:
            return [(kind, message.get("subtype"))]
