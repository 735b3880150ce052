"""A third provider: says back what it is asked."""

from collections.abc import Iterable

from alive.agent.v1 import agent_service_pb2, event_pb2, item_pb2, options_pb2, provider_pb2
from alive_kit.events import item_completed, item_started, text_delta
from alive_kit.provider import Turn, TurnSpec, Unsupported
from alive_kit.resume import Resume
from alive_kit.workspaces import Workspace


class EchoAgent:
    """An agent that knows one answer."""

    async def run(self, turn: Turn) -> event_pb2.TurnCompleted | None:
        """Say back the input."""
        request = turn.spec.request
        turn.remember(request.session_id)
        turn.emit(event_pb2.Event(turn_started=event_pb2.TurnStarted(model="echo-1")))
        item = item_pb2.Item(item_id=f"{request.turn_id}-1", message=item_pb2.MessageItem(role=item_pb2.ROLE_AGENT))
        text = request.input[0].text
        turn.emit(item_started(item))
        turn.emit(text_delta(item.item_id, text))
        item.message.text = text
        turn.emit(item_completed(item))
        return event_pb2.TurnCompleted(stop_reason=event_pb2.STOP_REASON_END_TURN)

    async def interrupt(self) -> None:
        """Nothing lasts long enough."""

    async def steer(self, parts: Iterable[options_pb2.InputPart]) -> None:
        """Not offered."""

    async def rest(self) -> bool:
        """Another one is as good."""
        return False

    async def is_ready(self) -> bool:
        """Never asked."""
        return True

    async def close(self) -> None:
        """Nothing is open."""


class EchoProvider:
    """The provider."""

    provider_id = "echo"
    per_turn = ()

    async def probe(self) -> provider_pb2.ProviderInfo:
        """Be ready."""
        readiness = provider_pb2.Readiness(state=provider_pb2.READINESS_STATE_READY)
        return provider_pb2.ProviderInfo(provider_id="echo", display_name="Echo", readiness=readiness)

    def unsupported(self, request: agent_service_pb2.StartTurnRequest, resume: Resume | None) -> Iterable[Unsupported]:
        """Refuse nothing."""
        return ()

    def has_file_tools(self, request: agent_service_pb2.StartTurnRequest) -> bool:
        """Return False: it has none."""
        return False

    async def start(self, spec: TurnSpec) -> EchoAgent:
        """Return an agent."""
        return EchoAgent()

    async def delete(self, workspace: Workspace, native_session: str) -> bool:
        """Nothing is kept."""
        return True


def create_provider() -> EchoProvider:
    """Return the provider."""
    return EchoProvider()
