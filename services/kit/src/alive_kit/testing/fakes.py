"""A provider without a vendor: its agent does what a script says.

For tests of the kit and the router, and as the smallest example of the port.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path

from alive.agent.v1 import (
    agent_service_pb2,
    approval_pb2,
    error_pb2,
    event_pb2,
    item_pb2,
    options_pb2,
    provider_pb2,
    usage_pb2,
)
from alive_kit.failures import failure
from alive_kit.fairness import Slice
from alive_kit.provider import Turn, TurnSpec, Unsupported
from alive_kit.resume import Resume
from alive_kit.workspaces import Workspace

Step = event_pb2.Event | approval_pb2.ApprovalRequested | Exception | Callable[["FakeAgent"], Awaitable[None]]
"""An event to emit, something to ask, an error to raise, or something to await."""


class FakeAgent:
    """An agent that plays a script."""

    def __init__(self, scripts: Mapping[str, Sequence[Step]], *, rests: bool) -> None:
        self._scripts = scripts
        self._rests = rests
        self.is_ready_for_more = True
        self.turns = 0
        self.interrupted = asyncio.Event()
        self.closed = asyncio.Event()
        self.decisions: list[approval_pb2.Decision] = []
        self.steered: list[options_pb2.InputPart] = []

    async def run(self, turn: Turn) -> event_pb2.TurnCompleted | None:
        """Play the turn's script once."""
        self.turns += 1
        self.interrupted.clear()
        turn.remember(f"native-{turn.spec.request.session_id}")
        words = turn.spec.request.input[0].text.split() or ["default"]
        time_slice = Slice()
        for step in self._scripts.get(words[0], self._scripts["default"]):
            if self.interrupted.is_set():
                return None
            match step:
                case event_pb2.Event():
                    event = event_pb2.Event()
                    event.CopyFrom(step)
                    turn.emit(event)
                    await time_slice.share()
                case approval_pb2.ApprovalRequested():
                    asked = approval_pb2.ApprovalRequested()
                    asked.CopyFrom(step)
                    self.decisions.append(await turn.ask(asked))
                case Exception():
                    raise step
                case _:
                    await step(self)
        if self.interrupted.is_set():
            return None
        return event_pb2.TurnCompleted(stop_reason=event_pb2.STOP_REASON_END_TURN)

    async def interrupt(self) -> None:
        """Have `waits_for_interrupt` go on."""
        self.interrupted.set()

    async def steer(self, parts: Iterable[options_pb2.InputPart]) -> None:
        """Keep the input for the test to look at."""
        self.steered.extend(parts)

    async def rest(self) -> bool:
        """Wait for another turn where the provider's agents do."""
        return self._rests

    async def is_ready(self) -> bool:
        """Say what the test wants."""
        return self.is_ready_for_more

    async def close(self) -> None:
        """Note that it was closed."""
        self.closed.set()


class FakeProvider:
    """A provider whose agents play the script named by the input's first word, or else the one called ``default``."""

    per_turn = ("agent.output_schema",)

    def __init__(
        self, scripts: Mapping[str, Sequence[Step]] | None = None, *, provider_id: str = "fake", warm: bool = False
    ) -> None:
        self.provider_id = provider_id
        self._warm = warm
        self.scripts = {"default": answers("Hello."), **(scripts or {})}
        self.readiness = provider_pb2.Readiness(state=provider_pb2.READINESS_STATE_READY)
        self.has_lost_sessions = False
        """Whether the vendor has nothing of any session any more."""
        self.specs: list[TurnSpec] = []
        self.agents: list[FakeAgent] = []
        self.deleted: list[str] = []

    async def probe(self) -> provider_pb2.ProviderInfo:
        """Describe the fake."""
        return provider_pb2.ProviderInfo(
            provider_id=self.provider_id,
            vendor="fake",
            display_name="Fake",
            versions=provider_pb2.Versions(service="0"),
            readiness=self.readiness,
            wall_level=provider_pb2.WALL_LEVEL_NONE,
            models=[provider_pb2.Model(model="fake-1", display_name="Fake 1", default=True)],
        )

    def unsupported(self, request: agent_service_pb2.StartTurnRequest, resume: Resume | None) -> Iterable[Unsupported]:
        """Refuse what a script cannot do."""
        if request.permissions.extra_directories:
            yield Unsupported(field="permissions.extra_directories", why="a script has no directories")

    def has_file_tools(self, request: agent_service_pb2.StartTurnRequest) -> bool:
        """Return False: it has none."""
        return False

    async def start(self, spec: TurnSpec) -> FakeAgent:
        """Return an agent for the scripts.

        Raises:
            TurnFailure: the session is among those that the vendor has lost.
        """
        self.specs.append(spec)
        if spec.resume and self.has_lost_sessions:
            raise failure(error_pb2.FAILURE_REASON_SESSION_NOT_FOUND)
        agent = FakeAgent(self.scripts, rests=self._warm)
        self.agents.append(agent)
        return agent

    async def delete(self, workspace: Workspace, native_session: str) -> bool:
        """Note what was deleted."""
        self.deleted.append(native_session)
        return True


def spec() -> TurnSpec:
    """Return the spec of a turn that nobody runs, in a workspace that does not exist."""
    return TurnSpec(
        request=agent_service_pb2.StartTurnRequest(turn_id="t"),
        workspace=Workspace(workspace_id="demo", path=Path("/ws"), home=Path("/home")),
        resume=None,
        mcp_servers=(),
        project_instructions="",
    )


def started(model: str = "fake-1") -> event_pb2.Event:
    """Return the first event of a script."""
    return event_pb2.Event(turn_started=event_pb2.TurnStarted(model=model))


def message_started(item_id: str = "message-1") -> event_pb2.Event:
    """Return the start of a message."""
    return event_pb2.Event(item_started=event_pb2.ItemStarted(item=_message(item_id, "")))


def delta(text: str, item_id: str = "message-1") -> event_pb2.Event:
    """Return text added to a message."""
    return event_pb2.Event(item_delta=event_pb2.ItemDelta(item_id=item_id, text=text))


def message_completed(text: str, item_id: str = "message-1") -> event_pb2.Event:
    """Return the end of a message."""
    item = _message(item_id, text)
    item.status = item_pb2.ITEM_STATUS_COMPLETED
    return event_pb2.Event(item_completed=event_pb2.ItemCompleted(item=item))


def usage(input_tokens: int, output_tokens: int) -> event_pb2.Event:
    """Return a count of tokens."""
    counted = usage_pb2.Usage(input_tokens=input_tokens, output_tokens=output_tokens, model_requests=1)
    return event_pb2.Event(usage_updated=event_pb2.UsageUpdated(usage=counted))


def answers(text: str) -> list[Step]:
    """Return the script of an agent that says something, word by word."""
    words = [delta(word + " ") for word in text.split()]
    return [started(), message_started(), *words, message_completed(text), usage(10, len(words))]


async def waits_for_interrupt(agent: FakeAgent) -> None:
    """Stand still until the turn is interrupted."""
    await agent.interrupted.wait()


async def ignores_interrupt(agent: FakeAgent) -> None:
    """Stand still whatever is asked; only cancellation ends it."""
    await asyncio.Event().wait()


def _message(item_id: str, text: str) -> item_pb2.Item:
    return item_pb2.Item(
        item_id=item_id,
        status=item_pb2.ITEM_STATUS_IN_PROGRESS,
        message=item_pb2.MessageItem(role=item_pb2.ROLE_AGENT, text=text),
    )
