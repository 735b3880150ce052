"""The AgentService of a provider: what each RPC does with the turns and the readiness of the service."""

from google.protobuf.message import DecodeError

from alive.agent.v1 import agent_service_pb2, approval_pb2, resolved_pb2, session_pb2
from alive_kit.errors import InvalidField, ProviderNotFound
from alive_kit.readiness import Readiness
from alive_kit.recovery import EndedTurn
from alive_kit.rpc import Context
from alive_kit.sessions import Sessions
from alive_kit.tls import is_from_router
from alive_kit.turn import LiveTurn
from alive_kit.turns import TurnTable
from alive_kit.validation import check_ids, check_input, check_page, check_resolved
from alive_kit.workspaces import Workspaces

RESOLVED_KEY = "x-alive-resolved-bin"
"""Metadata entry in which the router says what it decided about a turn."""

REASON_CHARACTERS = 500
"""How long the reason of an interrupt may be."""


CHUNK_BYTES = 256 << 10
"""How much of an item's content a response carries."""

SESSIONS_ON_PAGE = 50
ITEMS_ON_PAGE = 100


class AgentServicer:
    """AgentService over one provider."""

    def __init__(self, turns: TurnTable, sessions: Sessions, workspaces: Workspaces, readiness: Readiness) -> None:
        self._turns = turns
        self._sessions = sessions
        self._workspaces = workspaces
        self._readiness = readiness

    async def StartTurn(self, request: agent_service_pb2.StartTurnRequest, context: Context) -> None:
        """Start a turn, or re-attach to it, and stream its events."""
        await self._turns.agents.ask_ahead(request.workspace_id, request.session_id)
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

    async def SteerTurn(
        self, request: agent_service_pb2.SteerTurnRequest, _context: Context
    ) -> agent_service_pb2.SteerTurnResponse:
        """Add input to a running turn."""
        check_ids(request)
        check_input(request)
        await self._turns.steer(request)
        return agent_service_pb2.SteerTurnResponse()

    async def ResolveApproval(
        self, request: approval_pb2.ResolveApprovalRequest, _context: Context
    ) -> approval_pb2.ResolveApprovalResponse:
        """Answer an approval."""
        check_ids(request)
        self._turns.resolve(request.workspace_id, request.turn_id, request.approval_id, request.decision)
        return approval_pb2.ResolveApprovalResponse()

    async def ReadItemContent(self, request: agent_service_pb2.ReadItemContentRequest, context: Context) -> None:
        """Stream an item that was cut, in chunks."""
        check_ids(request)
        whole = self._turns.whole_item(request.workspace_id, request.turn_id, request.item_id)
        for start in range(0, len(whole), CHUNK_BYTES):
            chunk = agent_service_pb2.ReadItemContentResponse(data=whole[start : start + CHUNK_BYTES])
            await context.write(chunk.SerializeToString())

    async def ListSessions(
        self, request: session_pb2.ListSessionsRequest, _context: Context
    ) -> session_pb2.ListSessionsResponse:
        """List a page of sessions."""
        check_page(request)
        self._workspaces.find(request.workspace_id)
        page = self._sessions.page(request.workspace_id, request.page_size or SESSIONS_ON_PAGE, request.page_token)
        for session in page.sessions:
            session.warm = self._turns.agents.has_waiting(session.workspace_id, session.session_id)
        return page

    async def GetSession(
        self, request: session_pb2.GetSessionRequest, _context: Context
    ) -> session_pb2.GetSessionResponse:
        """Describe a session."""
        check_ids(request)
        self._workspaces.find(request.workspace_id)
        session = self._sessions.describe(request.workspace_id, request.session_id)
        if request.warm:
            self._turns.warm(request.workspace_id, request.session_id)
        session.warm = self._turns.agents.has_waiting(request.workspace_id, request.session_id)
        return session_pb2.GetSessionResponse(session=session)

    async def ForkSession(
        self, request: session_pb2.ForkSessionRequest, context: Context
    ) -> session_pb2.ForkSessionResponse:
        """Fork a session."""
        check_ids(request)
        session = await self._turns.fork(request.workspace_id, request.session_id, _resolved(context).session_id)
        return session_pb2.ForkSessionResponse(session=session)

    async def DeleteSession(
        self, request: session_pb2.DeleteSessionRequest, _context: Context
    ) -> session_pb2.DeleteSessionResponse:
        """Delete a session."""
        check_ids(request)
        await self._turns.delete(request.workspace_id, request.session_id)
        return session_pb2.DeleteSessionResponse()

    async def ListItems(
        self, request: session_pb2.ListItemsRequest, _context: Context
    ) -> session_pb2.ListItemsResponse:
        """List a page of a transcript."""
        check_page(request)
        self._workspaces.find(request.workspace_id)
        session = self._sessions.find(request.workspace_id, request.session_id)
        return self._sessions.items(session, request.page_size or ITEMS_ON_PAGE, request.page_token)

    async def GetProviderInfo(
        self, request: agent_service_pb2.GetProviderInfoRequest, _context: Context
    ) -> agent_service_pb2.GetProviderInfoResponse:
        """Describe the provider as last probed."""
        if request.provider_id not in {"", self._readiness.info.provider_id}:
            raise ProviderNotFound(request.provider_id, [self._readiness.info.provider_id])
        return agent_service_pb2.GetProviderInfoResponse(provider=self._readiness.info)


async def _stream(turn: LiveTurn | EndedTurn, after_seq: int, context: Context) -> None:
    with turn.reading() as log:
        async for response in log.follow(after_seq=after_seq):
            await context.write(response)


def _resolved(context: Context) -> resolved_pb2.ResolvedTurn:
    """Return what the router decided; nothing when the call does not come from the router."""
    resolved = resolved_pb2.ResolvedTurn()
    if not is_from_router(context):
        return resolved
    for key, value in context.invocation_metadata() or ():
        if key == RESOLVED_KEY and isinstance(value, bytes):
            try:
                resolved.ParseFromString(value)
            except DecodeError as error:
                raise InvalidField({RESOLVED_KEY: "is not a ResolvedTurn"}) from error
    check_resolved(resolved)
    return resolved
