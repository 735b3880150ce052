"""Counts a turn's tokens from what Claude says of each request, and of the session. As of Claude Code 2.1.330.

Anthropic counts input read from the cache and written to it apart from the rest; here input means all of it.
Of its own requests the CLI tells everything, of a subagent's what is known when its answer begins, and of those of its
WebSearch tool nothing; its sum of the turn has all of them, but not streams after which it asked for a whole answer.
"""

import re
from collections.abc import Mapping
from typing import Any

from alive.agent.v1 import usage_pb2
from alive_claude.prices import PRICES
from alive_kit.usage import Tally

Counts = Mapping[str, Any]

_SNAPSHOT = re.compile(r"-\d{8}$")
"""The date of a model's snapshot; the CLI sums it up, and prices it, under the model's own name."""


class ClaudeTally:
    """The requests of one turn."""

    def __init__(self) -> None:
        self._tally = Tally(PRICES)
        self._said: dict[str, dict[str, Any]] = {}
        self._left_out: set[str] = set()

    def count(self, message_id: str, model: str, counts: Counts | None) -> None:
        """Take what was said of a request: the latest word on each count holds."""
        said = self._said.setdefault(message_id, {})
        said.update((name, value) for name, value in (counts or {}).items() if value is not None)
        self._tally.count(message_id, _SNAPSHOT.sub("", model), _usage(said))

    def leave_out(self, message_id: str) -> None:
        """Take note that the CLI's sum has no part of a request; it cost what was said of it."""
        self._left_out.add(message_id)

    def settle(self, models: Mapping[str, Counts]) -> None:
        """Take what each model has used since the last result, by the CLI's sum."""
        for model, counts in models.items():
            self._tally.settle(_SNAPSHOT.sub("", model), _summed(counts), self._left_out)

    def total(self) -> usage_pb2.Usage:
        """Return the sum so far."""
        return self._tally.total()


def _usage(counts: Counts) -> usage_pb2.Usage:
    cached, written = counts.get("cache_read_input_tokens"), counts.get("cache_creation_input_tokens")
    usage = usage_pb2.Usage(
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=counts.get("output_tokens"),
        reasoning_tokens=(counts.get("output_tokens_details") or {}).get("thinking_tokens"),
    )
    if (fresh := counts.get("input_tokens")) is not None:
        usage.input_tokens = fresh + (cached or 0) + (written or 0)
    return usage


def _summed(counts: Counts) -> usage_pb2.Usage:
    cached, written = counts.get("cacheReadInputTokens", 0), counts.get("cacheCreationInputTokens", 0)
    return usage_pb2.Usage(
        input_tokens=counts.get("inputTokens", 0) + cached + written,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=counts.get("outputTokens", 0),
        reasoning_tokens=counts.get("thinkingTokens", 0),
    )
