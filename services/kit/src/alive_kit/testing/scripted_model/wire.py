"""What both vendors' dialects share: server-sent events, and a reply as a sequence of them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from alive_kit.testing.scripted_model.script import Fault, Reply


@dataclass(frozen=True, slots=True)
class Sent:
    """A piece of a stream."""

    data: bytes
    is_delta: bool = False


class Dialect(Protocol):
    """How one vendor's API says things."""

    def session(self, headers: dict[str, str], body: dict[str, Any]) -> str:
        """Return the vendor's own name of the session a request belongs to."""

    def inputs(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield the texts of user input in a request, newest first."""

    def is_side_request(self, body: dict[str, Any]) -> bool:
        """Whether a request is the CLI's own business and takes no reply of the script."""

    def stream(self, body: dict[str, Any], reply: Reply) -> Iterator[Sent]:
        """Yield a reply as server-sent events."""

    def whole(self, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
        """Return a reply in one piece."""

    def error(self, fault: Fault) -> dict[str, Any]:
        """Return the body of an error status."""

    def error_event(self, fault: Fault) -> bytes:
        """Return an error in mid-stream."""


def event(name: str, data: dict[str, Any]) -> bytes:
    """Return one server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def pieces(text: str, size: int) -> Iterator[str]:
    """Yield a text in pieces of at most so many characters."""
    for start in range(0, len(text), size):
        yield text[start : start + size]
