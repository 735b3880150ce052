"""The agent's memory: a file for each session, with a line for each message."""

import json
import uuid
from pathlib import Path

from alive_kit.testing.reference.wire import Failed, Json


class Memory:
    """What was said in a session: a file with a line for each message."""

    def __init__(self, directory: Path, session: str, *, is_kept: bool) -> None:
        self.session = session
        self.messages: list[Json] = []
        self._path = directory / f"{session}.jsonl" if is_kept else None

    @classmethod
    def open(cls, start: Json) -> "Memory":
        """Open a session: a new one, one that is there, or a fork of one."""
        directory = Path.home() / ".reference" / "sessions"
        directory.mkdir(parents=True, exist_ok=True)
        resumed, fork_at = start.get("resume"), start.get("fork_at")
        memory = cls(directory, resumed if resumed and fork_at is None else uuid.uuid4().hex, is_kept=start["is_kept"])
        if resumed:
            memory.messages = _read(directory / f"{resumed}.jsonl")
            if fork_at is not None:
                forked = memory.messages[: int(fork_at)] if fork_at else memory.messages
                memory.messages = []
                for message in forked:
                    memory.add(message)
        return memory

    def add(self, message: Json) -> None:
        """Remember a message."""
        self.messages.append(message)
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(message) + "\n")


def _read(path: Path) -> list[Json]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise Failed("SESSION_NOT_FOUND") from None
    except ValueError:
        raise Failed("SESSION_CORRUPT") from None
