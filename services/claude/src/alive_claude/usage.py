"""Counts a turn's tokens from what Claude says of each request.

Anthropic counts input read from the cache and written to it apart from the rest; here input means all of it.
"""

from collections.abc import Mapping
from typing import Any

from alive.agent.v1 import usage_pb2

Counts = Mapping[str, Any]


class Tally:
    """The requests of one turn."""

    def __init__(self) -> None:
        self._requests: dict[str, tuple[str, dict[str, Any]]] = {}

    def count(self, message_id: str, model: str, usage: Counts | None) -> None:
        """Take what was said of a request: the latest word counts."""
        known = self._requests.get(message_id, (model, {}))[1]
        said = {name: value for name, value in (usage or {}).items() if value is not None}
        self._requests[message_id] = (model, {**known, **said})

    def so_far(self) -> usage_pb2.Usage:
        """Return the sum."""
        return self.total(_sum([usage for _, usage in self._requests.values()]))

    def total(self, counts: Counts) -> usage_pb2.Usage:
        """Return a turn's counts with the requests and the models seen."""
        usage = _usage(counts, len(self._requests))
        for model in dict.fromkeys(model for model, _ in self._requests.values()):
            parts = [part for name, part in self._requests.values() if name == model]
            usage.models.add(model=model, usage=_usage(_sum(parts), len(parts)))
        return usage


def _usage(counts: Counts, requests: int) -> usage_pb2.Usage:
    cached, written = counts.get("cache_read_input_tokens"), counts.get("cache_creation_input_tokens")
    thinking = (counts.get("output_tokens_details") or {}).get("thinking_tokens")
    usage = usage_pb2.Usage(
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=counts.get("output_tokens"),
        reasoning_tokens=thinking,
        model_requests=requests,
    )
    if (fresh := counts.get("input_tokens")) is not None:
        usage.input_tokens = fresh + (cached or 0) + (written or 0)
    return usage


_SUMMED = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")


def _sum(parts: list[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(part.get(name) or 0 for part in parts) for name in _SUMMED if any(name in part for part in parts)}
