"""Sessions as callers see them: one each, whichever providers have had turns of it."""

import asyncio
import base64
import binascii
import contextlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Self

from alive.agent.v1 import resolved_pb2, session_pb2
from alive_kit.errors import InvalidField, SessionBusy, SessionNotFound
from alive_kit.rpc import Context
from alive_kit.servicer import ITEMS_ON_PAGE, RESOLVED_KEY, SESSIONS_ON_PAGE
from alive_kit.sessions import PAGE_BYTES, session_cursor, session_token
from alive_router.policy import Policy
from alive_router.providers import ProviderLinks
from alive_router.relay import Refused, ask
from alive_router.store import SessionTurn, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversations:
    """The sessions of every provider."""

    policy: Policy
    links: ProviderLinks
    store: Store

    async def page(
        self, request: session_pb2.ListSessionsRequest, context: Context
    ) -> session_pb2.ListSessionsResponse:
        """Merge what every provider lists: each session once, as its latest provider has it."""
        session_cursor(request.page_token)
        size = request.page_size or SESSIONS_ON_PAGE
        asked = session_pb2.ListSessionsRequest(
            workspace_id=request.workspace_id, page_size=size, page_token=request.page_token
        )
        links = [self.links[provider_id] for provider_id in self.policy.enabled]
        pages = await asyncio.gather(*(ask(link, link.stub.ListSessions, asked, context) for link in links))
        found = sorted((session for page in pages for session in page.sessions), key=_age, reverse=True)
        has_more = len(found) > size or any(page.next_page_token for page in pages)
        token = session_token(found[size - 1]) if has_more and len(found) >= size else ""
        shared = await self.store.shared_sessions(request.workspace_id)
        listed = [
            await self._once(session, context) if session.session_id in shared else session for session in found[:size]
        ]
        return session_pb2.ListSessionsResponse(
            sessions=[session for session in listed if session is not None], next_page_token=token
        )

    async def get(self, request: session_pb2.GetSessionRequest, context: Context) -> session_pb2.Session:
        """Describe a session: where it is now, and all that was made of it.

        Raises:
            SessionNotFound: there is none.
        """
        providers = _providers(await self.turns(request.workspace_id, request.session_id))
        asked = {provider_id: _asking(request) for provider_id in providers}
        asked[providers[-1]].warm = request.warm
        parts = await asyncio.gather(*(self._part(provider_id, one, context) for provider_id, one in asked.items()))
        return _whole(parts)

    async def fork(self, workspace_id: str, session_id: str, context: Context) -> session_pb2.Session:
        """Fork a session at every provider that has had turns of it, under one id."""
        turns = await self.turns(workspace_id, session_id)
        await self._check_idle(turns, workspace_id, session_id, context)
        resolved = resolved_pb2.ResolvedTurn(session_id=f"session-{uuid.uuid4()}")
        asked = session_pb2.ForkSessionRequest(workspace_id=workspace_id, session_id=session_id)
        metadata = ((RESOLVED_KEY, resolved.SerializeToString()),)
        parts = []
        try:
            for provider_id in _providers(turns):
                link = self.links[provider_id]
                parts.append((await ask(link, link.stub.ForkSession, asked, context, metadata)).session)
        except BaseException:
            for part in parts:
                with contextlib.suppress(Exception):
                    await self._delete_at(part.provider_id, workspace_id, resolved.session_id, context)
            raise
        fork = _whole(parts)
        await self.store.fork_session(workspace_id, session_id, resolved.session_id, turns[-1].provider_id)
        return fork

    async def delete(self, workspace_id: str, session_id: str, context: Context) -> None:
        """Delete a session wherever it is; nothing when there is none."""
        try:
            turns = await self.turns(workspace_id, session_id)
        except SessionNotFound:
            return
        await self._check_idle(turns, workspace_id, session_id, context)
        for provider_id in _providers(turns):
            await self._delete_at(provider_id, workspace_id, session_id, context)
        await self.store.forget_session(workspace_id, session_id)

    async def items(self, request: session_pb2.ListItemsRequest, context: Context) -> session_pb2.ListItemsResponse:
        """List a page of a session's items, in the order of its turns, whoever made them."""
        turns = await self.turns(request.workspace_id, request.session_id)
        providers = _providers(turns)
        if len(providers) == 1:
            link = self.links[providers[0]]
            return await ask(link, link.stub.ListItems, request, context)
        reading = _Reading.of(request.page_token)
        page, stretches = session_pb2.ListItemsResponse(), _stretches(turns)
        while reading.stretch < len(stretches) and _has_room(page, request):
            await self._read(request, stretches, reading, page, context)
        if reading.stretch < len(stretches):
            page.next_page_token = reading.token()
        return page

    async def turns(self, workspace_id: str, session_id: str) -> Sequence[SessionTurn]:
        """Return the turns of a session, oldest first; one without an id for a session that has none yet.

        Raises:
            SessionNotFound: there is no such session.
        """
        home = await self.store.provider_of_session(workspace_id, session_id)
        if not home:
            raise SessionNotFound(session_id)
        turns = await self.store.turns_of_session(workspace_id, session_id)
        return turns or [SessionTurn(turn_id="", number=0, told=0, chosen_provider_id=home, provider_id=home)]

    async def _once(self, listed: session_pb2.Session, context: Context) -> session_pb2.Session | None:
        """Return a session that several providers list, whole, where its latest one lists it; None elsewhere."""
        turns = await self.turns(listed.workspace_id, listed.session_id)
        if listed.provider_id != turns[-1].provider_id:
            return None
        return await self.get(_asking(listed), context)

    async def _part(
        self, provider_id: str, asked: session_pb2.GetSessionRequest, context: Context
    ) -> session_pb2.Session:
        link = self.links[provider_id]
        return (await ask(link, link.stub.GetSession, asked, context)).session

    async def _check_idle(
        self, turns: Sequence[SessionTurn], workspace_id: str, session_id: str, context: Context
    ) -> None:
        """Refuse before anything is done at the first of several providers."""
        asked = session_pb2.GetSessionRequest(workspace_id=workspace_id, session_id=session_id)
        for provider_id in _providers(turns):
            with contextlib.suppress(Refused):  # It never got there.
                part = await self._part(provider_id, asked, context)
                if part.state == session_pb2.SESSION_STATE_RUNNING:
                    raise SessionBusy(session_id, part.last_turn_id)

    async def _delete_at(self, provider_id: str, workspace_id: str, session_id: str, context: Context) -> None:
        link = self.links[provider_id]
        asked = session_pb2.DeleteSessionRequest(workspace_id=workspace_id, session_id=session_id)
        await ask(link, link.stub.DeleteSession, asked, context)

    async def _read(
        self,
        request: session_pb2.ListItemsRequest,
        stretches: Sequence["_Stretch"],
        reading: "_Reading",
        page: session_pb2.ListItemsResponse,
        context: Context,
    ) -> None:
        """Read on in a stretch of the session: what fits into the page, and not into the provider's next stretch."""
        stretch = stretches[reading.stretch]
        later = {
            turn_id
            for other in stretches[reading.stretch + 1 :]
            if other.provider_id == stretch.provider_id
            for turn_id in other.turn_ids
        }
        size = (request.page_size or ITEMS_ON_PAGE) - len(page.items)
        part = await self._items_at(stretch.provider_id, request, reading, size, context)
        own = list(takewhile(lambda entry: entry.turn_id not in later, part.items))
        is_cut = len(own) < len(part.items)
        if is_cut and own:  # Only the provider can say how it goes on from there.
            part = await self._items_at(stretch.provider_id, request, reading, len(own), context)
            own, is_cut = list(part.items), len(part.items) == len(own)
        if own:
            page.items.extend(own)
            reading.tokens[stretch.provider_id] = part.next_page_token
        if is_cut or not part.next_page_token:
            reading.stretch += 1

    async def _items_at(
        self,
        provider_id: str,
        request: session_pb2.ListItemsRequest,
        reading: "_Reading",
        size: int,
        context: Context,
    ) -> session_pb2.ListItemsResponse:
        token = reading.tokens.get(provider_id)
        if token == "":  # It was read to its end.
            return session_pb2.ListItemsResponse()
        link = self.links[provider_id]
        asked = session_pb2.ListItemsRequest(
            workspace_id=request.workspace_id, session_id=request.session_id, page_size=size, page_token=token or ""
        )
        return await ask(link, link.stub.ListItems, asked, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """Turns of a session that follow each other and that one provider had."""

    provider_id: str
    turn_ids: list[str]


@dataclass(slots=True, kw_only=True)
class _Reading:
    """How far a transcript was read."""

    stretch: int = 0
    tokens: dict[str, str] = field(default_factory=dict)
    """How each provider's part goes on; empty where it was read to its end."""

    @classmethod
    def of(cls, token: str) -> Self:
        """Return how far a page's token says.

        Raises:
            InvalidField: it is not one.
        """
        if not token:
            return cls()
        with contextlib.suppress(binascii.Error, ValueError, TypeError, RecursionError):
            stretch, tokens = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
            known = isinstance(tokens, dict) and all(isinstance(kept, str) for kept in tokens.values())
            if isinstance(stretch, int) and stretch >= 0 and known:
                return cls(stretch=stretch, tokens=tokens)
        raise InvalidField({"page_token": "is not one that a page ended with"})

    def token(self) -> str:
        """Return it as a page's token."""
        return base64.urlsafe_b64encode(json.dumps([self.stretch, self.tokens]).encode()).decode()


def _asking(named: session_pb2.GetSessionRequest | session_pb2.Session) -> session_pb2.GetSessionRequest:
    """Return what asks for a session."""
    return session_pb2.GetSessionRequest(workspace_id=named.workspace_id, session_id=named.session_id)


def _stretches(turns: Sequence[SessionTurn]) -> list[_Stretch]:
    stretches: list[_Stretch] = []
    for turn in turns:
        if not stretches or stretches[-1].provider_id != turn.provider_id:
            stretches.append(_Stretch(provider_id=turn.provider_id, turn_ids=[]))
        stretches[-1].turn_ids.append(turn.turn_id)
    return stretches


def _has_room(page: session_pb2.ListItemsResponse, request: session_pb2.ListItemsRequest) -> bool:
    return len(page.items) < (request.page_size or ITEMS_ON_PAGE) and page.ByteSize() < PAGE_BYTES // 2


def _providers(turns: Sequence[SessionTurn]) -> list[str]:
    """Return the providers of turns; that of the latest one is the last."""
    return list(reversed(dict.fromkeys(turn.provider_id for turn in reversed(turns))))


def _whole(parts: Sequence[session_pb2.Session]) -> session_pb2.Session:
    """Return a session as its latest provider has it, with what was made of it before: the latest comes last."""
    whole, first = session_pb2.Session(), min(parts, key=lambda part: part.create_time.ToNanoseconds())
    whole.CopyFrom(parts[-1])
    whole.title, whole.turn_count = first.title, sum(part.turn_count for part in parts)
    whole.create_time.CopyFrom(first.create_time)
    return whole


def _age(session: session_pb2.Session) -> tuple[int, str]:
    return session.update_time.ToNanoseconds(), session.session_id
