"""Reads what Codex says of a request to the model. Of one that broke or was interrupted it says nothing (0.163.0)."""

from collections.abc import Mapping
from typing import Any

from alive.agent.v1 import usage_pb2


def usage_of(last: Mapping[str, Any]) -> usage_pb2.Usage:
    """Return the tokens of the latest request. Codex also sums up the whole thread: that sum spans turns."""
    return usage_pb2.Usage(
        input_tokens=last.get("inputTokens"),
        cached_input_tokens=last.get("cachedInputTokens"),
        cache_write_tokens=last.get("cacheWriteInputTokens"),
        output_tokens=last.get("outputTokens"),
        reasoning_tokens=last.get("reasoningOutputTokens"),
    )
