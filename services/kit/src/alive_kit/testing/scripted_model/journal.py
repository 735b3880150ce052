"""The journal: every request the model got, as it came."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

KEPT = 2000
"""Requests that are kept."""


@dataclass(kw_only=True)
class Entry:
    """One request, and what became of it."""

    index: int
    """Its number among all requests, from 0."""
    script: str
    session: str
    """The vendor's own name of the session."""
    path: str
    headers: dict[str, str] = Field(repr=False)
    body: dict[str, Any] = Field(repr=False)
    answered: bool = False
    """Whether the whole reply went out."""
    abandoned: bool = False
    """Whether the caller left before that."""


class Journal:
    """The latest requests, and a way to wait for the next."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._count = 0
        self._changed = asyncio.Condition()

    def entries(self, script: str | None = None) -> list[Entry]:
        """Return the requests kept, oldest first; of one script when it is named."""
        return [entry for entry in self._entries if script in {None, entry.script}]

    async def add(self, **fields: Any) -> Entry:
        """Keep a request."""
        entry = Entry(index=self._count, **fields)
        self._count += 1
        self._entries.append(entry)
        await self.touch()
        return entry

    async def touch(self) -> None:
        """Wake those who wait, after an entry has changed."""
        async with self._changed:
            self._changed.notify_all()

    async def wait(self, condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
        """Return when a condition on the entries holds.

        Raises:
            TimeoutError: it did not hold in time.
        """
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(condition)
