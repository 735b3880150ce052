"""The whole system as an operator starts it, on the scripted model, and what a rival needs to reach the same model."""

import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from alive.agent.v1 import event_pb2, session_pb2
from alive_kit.testing.harness import Caller, calling
from alive_kit.testing.scripted_model import Reply, Script
from alive_kit.testing.scripted_model.control import ModelControl

from ..e2e.conftest import Running, up
from .processes import family, processes, read


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How soon a turn says something, in ms from its prompt."""

    event: float
    """Anything."""
    word: float
    """A word of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The system on this host."""

    running: Running
    caller: Caller
    model: ModelControl
    model_url: str
    key: str
    state: Path
    marker: str
    """Prompt for an answer of a few words."""

    async def turn(self, provider: str, session_id: str = "", prompt: str = "") -> tuple[Times, str]:
        """Run a turn; return how soon its first event and its first word reached the caller, and its session."""
        began, first, word, last = time.perf_counter(), 0.0, 0.0, event_pb2.Event()
        call = self.caller.start(
            prompt or self.marker, provider_id=provider, workspace_id="bench", session_id=session_id
        )
        while (response := await call.read()) is not grpc.aio.EOF:
            now = (time.perf_counter() - began) * 1e3
            first = first or now
            if not word and any(event.HasField("item_delta") for event in response.events):
                word = now
            last = response.events[-1]
        if not last.HasField("turn_completed"):
            raise RuntimeError(f"the turn did not complete: {last}")
        return Times(event=first, word=word), last.session_id

    async def script(self, name: str, *replies: Reply) -> str:
        """Return a prompt that plays some replies, again and again."""
        return f"{await self.model.script(f'bench-{name}', Script(replies=list(replies), loop=True))} go"

    def agents(self, provider: str) -> Iterator[int]:
        """Yield what a provider's agents consist of: the clients below its service, the boxes below its launcher."""
        sockets = f"{self.state}/run/".encode()
        for process in processes():
            words = read(process, "cmdline")
            if b"alive_launcher" in words and sockets in words and provider.encode() in words:
                yield from family(process)[1:]
        yield from family(self.running.pid(f"alive_{provider}"))[1:]

    async def until_warm(self, session_id: str) -> None:
        """Return when an agent waits for a session's next turn."""
        asked = session_pb2.GetSessionRequest(workspace_id="bench", session_id=session_id, warm=True)
        while not (await self.caller.stub.GetSession(asked)).session.warm:
            pass


@contextlib.asynccontextmanager
async def system(**variables: str) -> AsyncIterator[System]:
    """Run the system until the block ends."""
    with up(**variables) as running:
        url = re.search(r"scripted model at (http://\S+)", running.output)
        assert url
        (running.state / "workspaces/bench").mkdir()
        async with calling(running.address, running.state / "workspaces") as caller, ModelControl(url[1]) as model:
            marker = await model.script("bench", Script(replies=[Reply(text="A few words.")], loop=True))
            yield System(
                running=running,
                caller=caller,
                model=model,
                model_url=url[1],
                key=(running.state / "secrets/scripted-model/key").read_text().strip(),
                state=running.state,
                marker=f"{marker} go",
            )
