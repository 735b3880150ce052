"""The agent's side of its standard streams: JSON, a line for each thing said."""

import asyncio
import json
import sys
import uuid
from typing import Any

Json = dict[str, Any]

LINE_BYTES = 64 << 20


class Failed(Exception):
    """The turn fails, for a reason in the contract's words or by an HTTP status of the model's."""

    def __init__(self, reason: str = "UNSPECIFIED", **more: object) -> None:
        super().__init__(reason)
        self.error = {"reason": f"FAILURE_REASON_{reason}", **more}


class Wire:
    """What the agent says to whoever started it, and hears from there."""

    def __init__(self) -> None:
        self._steered: list[Json] = []
        self._answers: dict[str, asyncio.Future[Json]] = {}

    @staticmethod
    def parse(line: bytes) -> Json:
        """Return what a line says."""
        said: Json = json.loads(line)
        return said

    def take_steered(self) -> list[Json]:
        """Return the input that was added since this was last asked."""
        steered, self._steered = self._steered, []
        return steered

    def say(self, **said: object) -> None:
        """Say one thing."""
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()

    def emit(self, kind: str, event: object) -> None:
        """Say an event of the contract."""
        self.say(event={kind: event})

    async def ask(self, **asked: object) -> Json:
        """Ask the user, and return the decision."""
        question = uuid.uuid4().hex
        self._answers[question] = asyncio.get_running_loop().create_future()
        self.say(ask=asked, id=question)
        return await self._answers[question]

    async def hear(self, stdin: asyncio.StreamReader, turn: "asyncio.Task[None]") -> None:
        """Take what is said while the turn runs; interrupt it when that is said, or nobody is there any more."""
        while line := await stdin.readline():
            said = self.parse(line)
            if "answer" in said:
                self._answers.pop(said["id"]).set_result(said["answer"])
            elif "steer" in said:
                self._steered.extend(said["steer"])
            else:
                break
        turn.cancel()
