"""A dialect without a vendor: what the reference agent speaks. A script's actions go over the wire as they are."""

from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from alive_kit.testing.scripted_model.script import Action, Fault, Reply
from alive_kit.testing.scripted_model.wire import Sent, event, pieces

_ACTION: TypeAdapter[Action] = TypeAdapter(Action)


class Plain:
    """How the reference agent's model says things: one object in each event, with what it adds."""

    def session(self, headers: dict[str, str], body: dict[str, Any]) -> str:
        """Return the session."""
        return str(body.get("session", ""))

    def inputs(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield the texts of user messages, newest first."""
        for message in reversed(body.get("messages", [])):
            if message["role"] == "user":
                yield from (part["text"] for part in reversed(message["content"]) if "text" in part)

    def is_side_request(self, body: dict[str, Any]) -> bool:
        """Never."""
        return False

    def stream(self, body: dict[str, Any], reply: Reply) -> Iterator[Sent]:
        """Yield the reply, piece by piece."""
        for name, text in (("reasoning", reply.reasoning), ("text", reply.text)):
            for piece in pieces(text, reply.chunk):
                yield Sent(event("said", {name: piece}), is_delta=True)
        for action in reply.actions:
            yield Sent(event("said", {"action": _ACTION.dump_python(action)}))
        yield Sent(event("said", {"end": _end(reply)}))

    def whole(self, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
        """Return the reply in one piece."""
        actions = [_ACTION.dump_python(action) for action in reply.actions]
        return {"reasoning": reply.reasoning, "text": reply.text, "actions": actions, "end": _end(reply)}

    def error(self, fault: Fault) -> dict[str, Any]:
        """Return the error."""
        return {"error": f"scripted {fault.code or fault.status}"}

    def error_event(self, fault: Fault) -> bytes:
        """Return an error in mid-stream."""
        return event("said", self.error(fault))


def _end(reply: Reply) -> dict[str, Any]:
    usage = reply.usage
    tokens = {
        "input_tokens": usage.input,
        "cached_input_tokens": usage.cached,
        "cache_write_tokens": usage.cache_write,
        "output_tokens": usage.output,
        "reasoning_tokens": usage.reasoning,
    }
    return {"stop": reply.stop, "usage": tokens}
