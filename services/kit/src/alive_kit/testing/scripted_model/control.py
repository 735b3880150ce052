"""A client for a scripted model that runs as a process of its own."""

from typing import Self

import aiohttp
from pydantic import TypeAdapter

from alive_kit.testing.scripted_model.journal import Entry
from alive_kit.testing.scripted_model.script import SCRIPT, Script

_ENTRIES = TypeAdapter(list[Entry])


class ModelControl:
    """Sets scripts and reads the journal of a scripted model over HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = aiohttp.ClientSession()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def script(self, name: str, script: Script) -> str:
        """Set a script and return the marker that makes a prompt use it."""
        url = f"{self._url}/control/scripts/{name}"
        async with self._http.put(url, data=SCRIPT.dump_json(script)) as answer:
            answer.raise_for_status()
        return f"[script:{name}]"

    async def journal(self, script: str, *, count: int = 0) -> list[Entry]:
        """Return a script's requests, once there are so many (or 10 seconds have passed)."""
        parameters = {"script": script, "count": str(count)}
        async with self._http.get(f"{self._url}/control/journal", params=parameters) as answer:
            answer.raise_for_status()
            return _ENTRIES.validate_json(await answer.read())

    async def release(self) -> None:
        """Let every stalled reply go on."""
        async with self._http.post(f"{self._url}/control/release") as answer:
            answer.raise_for_status()
