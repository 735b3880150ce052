"""Counts a turn's tokens from what Codex says of each request to the model."""

from collections.abc import Mapping
from typing import Any

from alive.agent.v1 import usage_pb2


class Tally:
    """The requests of one turn. Codex also sums up the whole thread: that sum is not used, it spans turns."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._usage = usage_pb2.Usage()

    @property
    def requests(self) -> int:
        """Requests to the model so far."""
        return self._usage.model_requests

    def count(self, last: Mapping[str, Any]) -> usage_pb2.Usage:
        """Add a request and return the sum."""
        usage = self._usage
        usage.input_tokens += last.get("inputTokens", 0)
        usage.cached_input_tokens += last.get("cachedInputTokens", 0)
        usage.cache_write_tokens += last.get("cacheWriteInputTokens", 0)
        usage.output_tokens += last.get("outputTokens", 0)
        usage.reasoning_tokens += last.get("reasoningOutputTokens", 0)
        usage.model_requests += 1
        total = usage_pb2.Usage()
        total.CopyFrom(usage)
        total.models.add(model=self._model, usage=usage)
        return total
