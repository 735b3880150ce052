"""The AgentService of a provider: what each RPC does with the turns and the readiness of the service."""

from google.protobuf.message import DecodeError

from alive.agent.v1 import agent_service_pb2, resolved_pb2
from alive_kit.errors import InvalidField, ProviderNotFound
from alive_kit.readiness import Readiness
from alive_kit.rpc import Context
from alive_kit.tls import is_vouched_for
from alive_kit.turn import LiveTurn
from alive_kit.turns import TurnTable
from alive_kit.validation import check_ids

RESOLVED_KEY = "x-alive-resolved-bin"
"""Metadata entry in which the router says what it decided about a turn."""

REASON_CHARACTERS = 500
"""How long the reason of an interrupt may be."""


class AgentServicer:
    """AgentService over one provider."""

    def __init__(self, turns: TurnTable, readiness: Readiness) -> None:
        self._turns = turns
        self._readiness = readiness

    async def StartTurn(self, request: agent_service_pb2.StartTurnRequest, context: Context) -> None:
        """Start a turn, or re-attach to it, and stream its events."""
        turn = self._turns.start(request, _resolved(context), require_ready=self._readiness.require)
        if turn is not None:
            await _stream(turn, 0, context)

    async def WatchTurn(self, request: agent_service_pb2.WatchTurnRequest, context: Context) -> None:
        """Stream a turn from a seq on."""
        check_ids(request)
        turn = self._turns.find(request.workspace_id, request.turn_id)
        turn.log.check(request.after_seq)
        await _stream(turn, request.after_seq, context)

    async def InterruptTurn(
        self, request: agent_service_pb2.InterruptTurnRequest, _context: Context
    ) -> agent_service_pb2.InterruptTurnResponse:
        """Stop a turn and return once it has ended."""
        check_ids(request)
        if len(request.reason) > REASON_CHARACTERS:
            raise InvalidField({"reason": f"is over {REASON_CHARACTERS} characters"})
        result = await self._turns.interrupt(request.workspace_id, request.turn_id, request.reason)
        return agent_service_pb2.InterruptTurnResponse(result=result)

    async def GetProviderInfo(
        self, request: agent_service_pb2.GetProviderInfoRequest, _context: Context
    ) -> agent_service_pb2.GetProviderInfoResponse:
        """Describe the provider as last probed."""
        if request.provider_id not in {"", self._readiness.info.provider_id}:
            raise ProviderNotFound(request.provider_id, [self._readiness.info.provider_id])
        return agent_service_pb2.GetProviderInfoResponse(provider=self._readiness.info)


async def _stream(turn: LiveTurn, after_seq: int, context: Context) -> None:
    with turn.reading() as log:
        async for response in log.follow(after_seq=after_seq):
            await context.write(response)


def _resolved(context: Context) -> resolved_pb2.ResolvedTurn:
    """Return what the router decided; nothing when the call does not come from the router.

    On a unix socket the permissions of the socket's directory are the router's identity, and over TCP its
    certificate. Where there is neither the entry is ignored.
    """
    resolved = resolved_pb2.ResolvedTurn()
    if not context.peer().startswith("unix:") and not is_vouched_for(context):
        return resolved
    for key, value in context.invocation_metadata() or ():
        if key == RESOLVED_KEY and isinstance(value, bytes):
            try:
                resolved.ParseFromString(value)
            except DecodeError as error:
                raise InvalidField({RESOLVED_KEY: "is not a ResolvedTurn"}) from error
    return resolved
