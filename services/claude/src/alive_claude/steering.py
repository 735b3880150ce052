"""Input that is added to a turn while it runs. As of Claude Code 2.1.330.

The CLI hands such input to the model with the results of the tools that run, within the same turn. What comes when no
tool is called any more it keeps until it has given its answer, and answers it in what it takes for a turn of its own:
to the caller that is the same turn, which ends when nothing is kept any more.
"""

import uuid
from collections.abc import Mapping
from typing import Any

KIND = "command_lifecycle"
"""How the CLI says what became of input that has an id."""


class Steering:
    """What was added to one turn."""

    def __init__(self) -> None:
        self._kept: set[str] = set()

    @property
    def is_due(self) -> bool:
        """Whether the CLI has something that it has not answered."""
        return bool(self._kept)

    def add(self) -> str:
        """Return the id of input that is to be sent."""
        message_id = str(uuid.uuid4())
        self._kept.add(message_id)
        return message_id

    def drop(self, message_id: str) -> None:
        """Expect nothing of input that was not sent."""
        self._kept.discard(message_id)

    def hear(self, raw: Mapping[str, Any]) -> None:
        """Take note of what became of input: once it is begun with, the next answer is about it too."""
        if raw.get("state") != "queued":
            self._kept.discard(str(raw.get("command_uuid", "")))
