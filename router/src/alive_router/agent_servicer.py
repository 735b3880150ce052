"""AgentService as callers see it: each call finds its provider and is passed on."""

import asyncio
import uuid
from typing import TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from alive.agent.v1 import agent_service_pb2, approval_pb2, resolved_pb2, session_pb2
from alive_kit.errors import ProviderNotReady, SessionNotFound, ShuttingDown, StreamLost, TurnNotFound
from alive_kit.rpc import Context
from alive_kit.servicer import RESOLVED_KEY, SESSIONS_ON_PAGE
from alive_kit.sessions import session_cursor, session_token
from alive_kit.validation import check_ids, check_page, check_start_turn
from alive_kit.workspaces import Workspaces
from alive_router.policy import Policy
from alive_router.providers import ProviderLink, ProviderLinks
from alive_router.relay import Refused, failure_of, forwarded, relay
from alive_router.store import Store, TurnRow

_UNARY_SECONDS = 30.0

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

OfSession: TypeAlias = (
    session_pb2.GetSessionRequest
    | session_pb2.ForkSessionRequest
    | session_pb2.DeleteSessionRequest
    | session_pb2.ListItemsRequest
)


class AgentServicer:
    """AgentService in front of every provider."""

    def __init__(self, policy: Policy, links: ProviderLinks, store: Store, workspaces: Workspaces) -> None:
        self._policy = policy
        self._links = links
        self._store = store
        self._workspaces = workspaces
        self.is_draining = False

    async def StartTurn(self, request: agent_service_pb2.StartTurnRequest, context: Context) -> None:
        """Pick a provider and relay its turn."""
        check_start_turn(request)
        self._workspaces.find(request.workspace_id)
        known = await self._store.turn(request.workspace_id, request.turn_id) if request.turn_id else None
        if self.is_draining and known is None:
            raise ShuttingDown
        turn, resolved = await self._resolve(request, known)
        await self._links[turn.provider_id].connect()
        opens_session = not request.session_id and not request.ephemeral
        may_be_new = known is None and not request.validate_only
        is_new = may_be_new and await self._store.add_turn(turn, opens_session=opens_session)
        if may_be_new and not is_new:  # The same call came twice at the same time; the other one was first.
            known = await self._store.turn(turn.workspace_id, turn.turn_id)
            turn, resolved = await self._resolve(request, known)
        link = self._links[turn.provider_id]
        metadata = [*forwarded(context.invocation_metadata()), (RESOLVED_KEY, resolved.SerializeToString())]
        try:
            await self._relay(link, "StartTurn", request, context, metadata, turn.turn_id)
        except Refused as refused:
            if is_new and refused.at_once:
                await self._store.forget_turn(turn, opens_session=opens_session)
            await refused.pass_on(context)

    async def WatchTurn(self, request: agent_service_pb2.WatchTurnRequest, context: Context) -> None:
        """Relay a turn from the provider that has it."""
        check_ids(request)
        self._workspaces.find(request.workspace_id)
        candidates = await self._having(request.workspace_id, request.turn_id)
        if not candidates:
            raise TurnNotFound(request.turn_id)
        metadata = forwarded(context.invocation_metadata())
        for link in candidates:
            is_last = link is candidates[-1]
            try:
                await link.connect()
                await self._relay(link, "WatchTurn", request, context, metadata, request.turn_id)
                break
            except ProviderNotReady:
                if is_last:
                    raise
            except Refused as refused:
                if is_last or refused.code is not grpc.StatusCode.NOT_FOUND:
                    await refused.pass_on(context)

    async def InterruptTurn(
        self, request: agent_service_pb2.InterruptTurnRequest, context: Context
    ) -> agent_service_pb2.InterruptTurnResponse:
        """Stop a turn at the provider that has it; at every provider when the turn is not known yet."""
        check_ids(request)
        self._workspaces.find(request.workspace_id)
        links = await self._having(request.workspace_id, request.turn_id)
        answers = await asyncio.gather(
            *(self._interrupt(link, request, context) for link in links), return_exceptions=True
        )
        results = [answer for answer in answers if not isinstance(answer, BaseException)]
        if not results:
            first = next(answer for answer in answers if isinstance(answer, BaseException))
            if isinstance(first, Refused):
                await first.pass_on(context)
            raise first
        # A provider that had the turn knows more than those that only keep the interrupt.
        return min(results, key=lambda response: response.result)

    async def SteerTurn(
        self, request: agent_service_pb2.SteerTurnRequest, context: Context
    ) -> agent_service_pb2.SteerTurnResponse:
        """Add input to a turn at the provider that has it."""
        link = await self._with_turn(request.workspace_id, request.turn_id)
        return await self._ask(link, link.stub.SteerTurn, request, context)

    async def ResolveApproval(
        self, request: approval_pb2.ResolveApprovalRequest, context: Context
    ) -> approval_pb2.ResolveApprovalResponse:
        """Answer an approval at the provider that has its turn."""
        link = await self._with_turn(request.workspace_id, request.turn_id)
        return await self._ask(link, link.stub.ResolveApproval, request, context)

    async def ReadItemContent(self, request: agent_service_pb2.ReadItemContentRequest, context: Context) -> None:
        """Relay an item's content from the provider that has its turn."""
        check_ids(request)
        link = await self._with_turn(request.workspace_id, request.turn_id)
        metadata, lost = forwarded(context.invocation_metadata()), StreamLost(link.provider_id, request.turn_id)
        method = link.streaming("ReadItemContent")
        try:
            await relay(method, request.SerializeToString(), context, metadata, lost, response_bytes=0)
        except Refused as refused:
            await refused.pass_on(context)

    async def ListSessions(
        self, request: session_pb2.ListSessionsRequest, context: Context
    ) -> session_pb2.ListSessionsResponse:
        """Merge what every provider lists: all of it, or UNAVAILABLE with the provider that cannot be asked."""
        check_page(request)
        self._workspaces.find(request.workspace_id)
        session_cursor(request.page_token)
        size = request.page_size or SESSIONS_ON_PAGE
        asked = session_pb2.ListSessionsRequest(
            workspace_id=request.workspace_id, page_size=size, page_token=request.page_token
        )
        links = await asyncio.gather(*(self._connected(provider_id) for provider_id in self._policy.enabled))
        pages = await asyncio.gather(*(self._ask(link, link.stub.ListSessions, asked, context) for link in links))
        found = sorted((session for page in pages for session in page.sessions), key=_age, reverse=True)
        has_more = len(found) > size or any(page.next_page_token for page in pages)
        token = session_token(found[size - 1]) if has_more and len(found) >= size else ""
        return session_pb2.ListSessionsResponse(sessions=found[:size], next_page_token=token)

    async def GetSession(
        self, request: session_pb2.GetSessionRequest, context: Context
    ) -> session_pb2.GetSessionResponse:
        """Describe a session as its provider does."""
        link = await self._with_session(request)
        return await self._ask(link, link.stub.GetSession, request, context)

    async def ForkSession(
        self, request: session_pb2.ForkSessionRequest, context: Context
    ) -> session_pb2.ForkSessionResponse:
        """Fork a session at its provider."""
        link = await self._with_session(request)
        forked = await self._ask(link, link.stub.ForkSession, request, context)
        await self._store.add_session(request.workspace_id, forked.session.session_id, link.provider_id)
        return forked

    async def DeleteSession(
        self, request: session_pb2.DeleteSessionRequest, context: Context
    ) -> session_pb2.DeleteSessionResponse:
        """Delete a session at its provider; nothing when there is none."""
        try:
            link = await self._with_session(request)
        except SessionNotFound:
            return session_pb2.DeleteSessionResponse()
        deleted = await self._ask(link, link.stub.DeleteSession, request, context)
        await self._store.forget_session(request.workspace_id, request.session_id)
        return deleted

    async def ListItems(self, request: session_pb2.ListItemsRequest, context: Context) -> session_pb2.ListItemsResponse:
        """List a session's items as its provider does."""
        check_page(request)
        link = await self._with_session(request)
        return await self._ask(link, link.stub.ListItems, request, context)

    async def GetProviderInfo(
        self, request: agent_service_pb2.GetProviderInfoRequest, _context: Context
    ) -> agent_service_pb2.GetProviderInfoResponse:
        """Describe a provider: the one named, or the workspace's, or the default."""
        of_workspace = ""
        if request.workspace_id:
            self._workspaces.find(request.workspace_id)
            of_workspace = (await self._store.workspace(request.workspace_id)).settings.provider_id
        provider_id = self._policy.choose(requested=request.provider_id, of_workspace=of_workspace)
        return agent_service_pb2.GetProviderInfoResponse(provider=await self._links[provider_id].info())

    async def _resolve(
        self, request: agent_service_pb2.StartTurnRequest, known: TurnRow | None
    ) -> tuple[TurnRow, resolved_pb2.ResolvedTurn]:
        """Return which provider has or gets the turn, and what that provider is told."""
        workspace = await self._store.workspace(request.workspace_id)
        resolved = resolved_pb2.ResolvedTurn(settings=workspace.settings, attempt=1)
        if known:
            resolved.session_id = known.session_id
            return known, resolved
        of_session = ""
        if request.session_id:
            of_session = await self._store.provider_of_session(request.workspace_id, request.session_id)
            if not of_session:
                raise SessionNotFound(request.session_id)
        resolved.turn_id = request.turn_id or f"turn-{uuid.uuid4()}"
        resolved.session_id = request.session_id or f"session-{uuid.uuid4()}"
        turn = TurnRow(
            workspace_id=request.workspace_id,
            turn_id=resolved.turn_id,
            session_id=resolved.session_id,
            provider_id=self._policy.choose(
                requested=request.provider_id, of_session=of_session, of_workspace=workspace.settings.provider_id
            ),
        )
        return turn, resolved

    async def _with_turn(self, workspace_id: str, turn_id: str) -> ProviderLink:
        """Return the provider that has a turn."""
        check_ids(agent_service_pb2.WatchTurnRequest(workspace_id=workspace_id, turn_id=turn_id))
        self._workspaces.find(workspace_id)
        known = await self._store.turn(workspace_id, turn_id)
        if known is None:
            raise TurnNotFound(turn_id)
        return await self._connected(known.provider_id)

    async def _with_session(self, request: OfSession) -> ProviderLink:
        """Return the provider that has a session."""
        check_ids(request)
        self._workspaces.find(request.workspace_id)
        provider_id = await self._store.provider_of_session(request.workspace_id, request.session_id)
        if not provider_id:
            raise SessionNotFound(request.session_id)
        return await self._connected(provider_id)

    async def _connected(self, provider_id: str) -> ProviderLink:
        link = self._links[provider_id]
        await link.connect()
        return link

    async def _ask(
        self,
        link: ProviderLink,
        method: "grpc.aio.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        context: Context,
    ) -> Response:
        """Call a unary method of a provider; pass its refusal on as it is."""
        metadata, timeout = tuple(forwarded(context.invocation_metadata())), context.time_remaining() or _UNARY_SECONDS
        try:
            return await method(request, metadata=metadata, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error, StreamLost(link.provider_id, ""))
            if isinstance(failure, Refused):
                await failure.pass_on(context)
            raise failure from error

    async def _having(self, workspace_id: str, turn_id: str) -> list[ProviderLink]:
        """Return the provider that has a turn; all of them when that is not known."""
        known = await self._store.turn(workspace_id, turn_id)
        return [self._links[provider] for provider in ([known.provider_id] if known else self._policy.enabled)]

    async def _relay(
        self,
        link: ProviderLink,
        method: str,
        request: Message,
        context: Context,
        metadata: list[tuple[str, str | bytes]],
        turn_id: str,
    ) -> None:
        lost = StreamLost(link.provider_id, turn_id)
        await relay(link.streaming(method), request.SerializeToString(), context, metadata, lost)

    async def _interrupt(
        self, link: ProviderLink, request: agent_service_pb2.InterruptTurnRequest, context: Context
    ) -> agent_service_pb2.InterruptTurnResponse:
        await link.connect()
        metadata = forwarded(context.invocation_metadata())
        timeout = context.time_remaining() or _UNARY_SECONDS
        try:
            return await link.stub.InterruptTurn(request, metadata=tuple(metadata), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise failure_of(error, StreamLost(link.provider_id, request.turn_id)) from error


def _age(session: session_pb2.Session) -> tuple[int, str]:
    return session.update_time.ToNanoseconds(), session.session_id
