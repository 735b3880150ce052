"""AgentService as callers see it: each call finds its provider and is passed on."""

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

import grpc

from alive.agent.v1 import agent_service_pb2, approval_pb2, session_pb2
from alive_kit.errors import ProviderNotReady, TurnNotFound
from alive_kit.rpc import Context
from alive_kit.validation import check_ids, check_page, check_provider_id
from alive_kit.workspaces import Workspaces
from alive_router.audience import EVERYBODY
from alive_router.conversations import Conversations
from alive_router.policy import Policy
from alive_router.providers import ProviderLink, ProviderLinks
from alive_router.relay import Outgoing, Refused, Relays, ask, passing_on
from alive_router.standing import Standing
from alive_router.starts import Starts
from alive_router.store import Store

_OfTurn: TypeAlias = (
    agent_service_pb2.SteerTurnRequest | agent_service_pb2.ReadItemContentRequest | approval_pb2.ResolveApprovalRequest
)


class AgentServicer:
    """AgentService in front of every provider."""

    def __init__(
        self,
        *,
        policy: Policy,
        links: ProviderLinks,
        store: Store,
        workspaces: Workspaces,
        standing: Standing,
        starts: Starts,
    ) -> None:
        self._policy = policy
        self._links = links
        self._store = store
        self._workspaces = workspaces
        self._standing = standing
        self._starts = starts
        self._conversations = Conversations(policy=policy, links=links, store=store)
        self.relays: Relays = starts.relays

    @passing_on
    async def StartTurn(self, request: agent_service_pb2.StartTurnRequest, context: Context) -> None:
        """Pick a provider and relay its turn."""
        await self._starts.run(request, context)

    @passing_on
    async def WatchTurn(self, request: agent_service_pb2.WatchTurnRequest, context: Context) -> None:
        """Relay a turn from the provider that has it."""
        check_ids(request)
        self._workspaces.check(request.workspace_id)
        candidates = await self._having(request.workspace_id, request.turn_id)
        if not candidates:
            raise TurnNotFound(request.turn_id)
        for link in candidates:
            is_last = link is candidates[-1]
            try:
                await link.connect()
                outgoing = Outgoing(link=link, method="WatchTurn", request=request, turn_id=request.turn_id)
                await self.relays.run(outgoing, context)
                break
            except ProviderNotReady:
                if is_last:
                    raise
            except Refused as refused:
                if is_last or refused.code is not grpc.StatusCode.NOT_FOUND:
                    raise

    @passing_on
    async def InterruptTurn(
        self, request: agent_service_pb2.InterruptTurnRequest, context: Context
    ) -> agent_service_pb2.InterruptTurnResponse:
        """Stop a turn at the provider that has it; at every provider when the turn is not known yet."""
        check_ids(request)
        self._workspaces.check(request.workspace_id)
        self._standing.check_owner(context, await self._store.turn(request.workspace_id, request.turn_id))
        links = await self._having(request.workspace_id, request.turn_id)
        answer = await self._interrupt(links, request, context)
        if answer.result == agent_service_pb2.INTERRUPT_RESULT_KEPT:  # It may be on its way to another provider.
            others = [self._links[provider_id] for provider_id in self._policy.enabled]
            answer = await self._interrupt([link for link in others if link not in links] or links, request, context)
        return answer

    @passing_on
    async def SteerTurn(
        self, request: agent_service_pb2.SteerTurnRequest, context: Context
    ) -> agent_service_pb2.SteerTurnResponse:
        """Add input to a turn at the provider that has it."""
        link = await self._with_turn(request, context, is_for_owner=True)
        return await ask(link, link.stub.SteerTurn, request, context)

    @passing_on
    async def ResolveApproval(
        self, request: approval_pb2.ResolveApprovalRequest, context: Context
    ) -> approval_pb2.ResolveApprovalResponse:
        """Answer an approval at the provider that has its turn."""
        link = await self._with_turn(request, context, is_for_owner=True)
        return await ask(link, link.stub.ResolveApproval, request, context)

    @passing_on
    async def ReadItemContent(self, request: agent_service_pb2.ReadItemContentRequest, context: Context) -> None:
        """Relay an item's content from the provider that has its turn."""
        check_ids(request)
        link = await self._with_turn(request, context)
        await link.connect()
        outgoing = Outgoing(
            link=link, method="ReadItemContent", request=request, turn_id=request.turn_id, response_bytes=0
        )
        await self.relays.run(outgoing, context)

    @passing_on
    async def ListSessions(
        self, request: session_pb2.ListSessionsRequest, context: Context
    ) -> session_pb2.ListSessionsResponse:
        """List the sessions of all providers: all of it, or UNAVAILABLE with the provider that cannot be asked."""
        check_page(request)
        self._workspaces.check(request.workspace_id)
        return await self._conversations.page(request, context)

    @passing_on
    async def GetSession(
        self, request: session_pb2.GetSessionRequest, context: Context
    ) -> session_pb2.GetSessionResponse:
        """Describe a session."""
        check_ids(request)
        self._workspaces.check(request.workspace_id)
        session = await self._conversations.get(request, context)
        return session_pb2.GetSessionResponse(session=session)

    @passing_on
    async def ForkSession(
        self, request: session_pb2.ForkSessionRequest, context: Context
    ) -> session_pb2.ForkSessionResponse:
        """Fork a session."""
        check_ids(request)
        self._workspaces.check(request.workspace_id)
        session = await self._conversations.fork(request.workspace_id, request.session_id, context)
        return session_pb2.ForkSessionResponse(session=session)

    @passing_on
    async def DeleteSession(
        self, request: session_pb2.DeleteSessionRequest, context: Context
    ) -> session_pb2.DeleteSessionResponse:
        """Delete a session; nothing when there is none."""
        check_ids(request)
        self._workspaces.check(request.workspace_id)
        await self._conversations.delete(request.workspace_id, request.session_id, context)
        return session_pb2.DeleteSessionResponse()

    @passing_on
    async def ListItems(self, request: session_pb2.ListItemsRequest, context: Context) -> session_pb2.ListItemsResponse:
        """List a session's items."""
        check_page(request)
        self._workspaces.check(request.workspace_id)
        return await self._conversations.items(request, context)

    async def GetProviderInfo(
        self, request: agent_service_pb2.GetProviderInfoRequest, context: Context
    ) -> agent_service_pb2.GetProviderInfoResponse:
        """Describe a provider: the one named, or the workspace's, or the default."""
        check_provider_id(request.provider_id)
        of_workspace, audience = "", EVERYBODY
        if request.workspace_id:
            self._workspaces.check(request.workspace_id)
            of_workspace = (await self._store.settings(request.workspace_id)).provider_id
            audience = await self._standing.audience(request.workspace_id, self._standing.owner(context))
        if request.provider_id:  # It may be looked at, whoever may use it.
            audience = EVERYBODY
        provider_id = self._policy.choose(requested=request.provider_id, of_workspace=of_workspace, audience=audience)
        return agent_service_pb2.GetProviderInfoResponse(provider=await self._links[provider_id].info())

    async def _with_turn(self, request: _OfTurn, context: Context, *, is_for_owner: bool = False) -> ProviderLink:
        """Return the provider that has a turn; where it is for its owner only, to nobody else."""
        check_ids(agent_service_pb2.WatchTurnRequest(workspace_id=request.workspace_id, turn_id=request.turn_id))
        self._workspaces.check(request.workspace_id)
        known = await self._store.turn(request.workspace_id, request.turn_id)
        if known is None:
            raise TurnNotFound(request.turn_id)
        if is_for_owner:
            self._standing.check_owner(context, known)
        return self._links[known.provider_id]

    async def _having(self, workspace_id: str, turn_id: str) -> list[ProviderLink]:
        """Return the provider that has a turn; all of them when that is not known."""
        known = await self._store.turn(workspace_id, turn_id)
        return [self._links[provider] for provider in ([known.provider_id] if known else self._policy.enabled)]

    async def _interrupt(
        self, links: Sequence[ProviderLink], request: agent_service_pb2.InterruptTurnRequest, context: Context
    ) -> agent_service_pb2.InterruptTurnResponse:
        """Stop a turn at each of some providers; what the one that has it says counts."""
        asked = (ask(link, link.stub.InterruptTurn, request, context) for link in links)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        results = [answer for answer in answers if not isinstance(answer, BaseException)]
        if not results:
            raise next(answer for answer in answers if isinstance(answer, BaseException))
        # A provider that had the turn knows more than those that only keep the interrupt.
        return min(results, key=lambda response: response.result)
