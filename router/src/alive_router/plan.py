"""What the router decided about a turn: who may take it, and what each of them is told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alive.agent.v1 import agent_service_pb2, event_pb2, options_pb2, provider_pb2, resolved_pb2, workspace_service_pb2
from alive_kit.merge import digest
from alive_router.store import SessionTurn, TurnRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A turn, and who may take it."""

    request: agent_service_pb2.StartTurnRequest
    """As it came."""
    turn: TurnRow
    settings: workspace_service_pb2.WorkspaceSettings
    candidates: Sequence[str]
    """Providers that may take it, in order."""
    earlier: Sequence[SessionTurn] = ()
    """The turns of its session before it, oldest first; only the latest where nobody needs to know more."""
    home: str = ""
    """The provider that the session was opened with, if it was before."""
    usual: str = ""
    """The provider whose models the workspace's settings name."""
    notices: Sequence[event_pb2.Notice] = ()
    """What the caller is to be told, whoever takes the turn."""
    is_known: bool = False
    """Whether the call was made before: a provider has the turn."""

    @property
    def opens_session(self) -> bool:
        """Whether the turn is the first of a session that is kept."""
        return not self.request.session_id and not self.request.ephemeral

    @property
    def before(self) -> str:
        """The provider that had the session's latest turn; empty when it has none."""
        return self.earlier[-1].provider_id if self.earlier else self.home

    @property
    def is_only_a_pick(self) -> bool:
        """Whether there is nothing to be done but to lead the request, as it came, to the one who may take it."""
        provider_id, named = self.turn.provider_id, self.settings.agent
        return (
            not self.is_known
            and list(self.candidates) == [provider_id]
            and (not self.request.session_id or self.has_session(provider_id))
            and self.before in {"", provider_id}
            and not self.unseen(provider_id)
            and (provider_id == self.usual or not (named.model or named.effort))
        )

    def has_session(self, provider_id: str) -> bool:
        """Whether a provider knows the turn's session."""
        return provider_id == self.home or any(turn.provider_id == provider_id for turn in self.earlier)

    def unseen(self, provider_id: str) -> Sequence[SessionTurn]:
        """Return the turns of the session that a provider does not know: those of others since it was told."""
        told = self.told(provider_id)
        return [turn for turn in self.earlier if turn.number > told and turn.provider_id != provider_id]

    def told(self, provider_id: str) -> int:
        """Return the number of the session's latest turn that a provider knows with all before it."""
        return max((turn.told for turn in self.earlier if turn.provider_id == provider_id), default=0)

    def outgoing(self, provider_id: str) -> agent_service_pb2.StartTurnRequest:
        """Return the request for a provider: one that does not know the session opens it under its id."""
        request = agent_service_pb2.StartTurnRequest()
        request.CopyFrom(self.request)
        request.ClearField("provider_id")
        if not self.has_session(provider_id):
            request.ClearField("session_id")
        return request

    def resolved(self, *, attempt: int, failover_allowed: bool) -> resolved_pb2.ResolvedTurn:
        """Return what a provider is told beside the request."""
        return resolved_pb2.ResolvedTurn(
            turn_id=self.turn.turn_id,
            session_id=self.turn.session_id,
            settings=self.settings,
            attempt=attempt,
            failover_allowed=failover_allowed,
            request_digest=digest(self.request),
            owner_id=self.turn.owner_id,
            notices=self.notices,
        )


def fit_model(agent: options_pb2.AgentOptions, info: provider_pb2.ProviderInfo) -> Iterator[event_pb2.Notice]:
    """Take a model or an effort that is not the provider's out of the options, and say so."""
    models = {model.model: model for model in info.models}
    if agent.model and models and agent.model not in models:
        yield notice("model_replaced", f"{info.provider_id} has no model {agent.model}: its default one answers")
        agent.ClearField("model")
        agent.ClearField("effort")
    default = next((model for model in info.models if model.default), None)
    model = models.get(agent.model, default)
    if agent.effort and model and agent.effort not in model.efforts:
        yield notice("effort_replaced", f"{model.model} has no effort {agent.effort}: its default one is used")
        agent.ClearField("effort")


def notice(code: str, message: str, **details: str) -> event_pb2.Notice:
    """Return something the router has to say to the caller."""
    return event_pb2.Notice(severity=event_pb2.SEVERITY_WARNING, code=code, message=message, details=details)
