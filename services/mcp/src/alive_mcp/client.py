"""Who called a tool: it can be told how far the work is, and asked something on the user's behalf."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeAlias

from mcp.server.mcpserver import Context as Request
from mcp.types import (
    ClientCapabilities,
    ElicitationCapability,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
)

Answers: TypeAlias = Mapping[str, Any]

_TELL_SECONDS = 5.0


class InputNeeded(Exception):
    """The client is asked by the call's result, and calls again with the answer (protocol 2026-07-28)."""

    NAME = "asked"

    def __init__(self, request: ElicitRequest) -> None:
        super().__init__()
        self.request = request


class Client:
    """The caller of one tool call."""

    def __init__(self, request: Request[Any, Any], *, may_ask: bool) -> None:
        self._request = request
        self._may_ask = may_ask

    @property
    def can_ask(self) -> bool:
        """Whether the user can be asked through it."""
        wanted = ClientCapabilities(elicitation=ElicitationCapability())
        return self._may_ask and self._request.session.check_client_capability(wanted)

    async def ask(self, message: str, properties: Mapping[str, Mapping[str, Any]]) -> Answers | None:
        """Ask the user to fill in a form, and return it; None when the user does not want to.

        The schema has no title of its own: Codex takes none (codex 0.163.0).
        """
        schema = {"type": "object", "properties": dict(properties), "required": list(properties)}
        answer = await self._answer(ElicitRequestFormParams(message=message, requested_schema=schema))
        return answer.content or {} if answer.action == "accept" else None

    async def _answer(self, asked: ElicitRequestFormParams) -> ElicitResult:
        session = self._request.session
        if session.can_send_request:
            given: ElicitResult = await session.elicit_form(
                asked.message, asked.requested_schema, self._request.request_id
            )
            return given
        answer = (self._request.input_responses or {}).get(InputNeeded.NAME)
        if not isinstance(answer, ElicitResult):
            raise InputNeeded(ElicitRequest(params=asked))
        return answer

    @contextlib.asynccontextmanager
    async def working(self, what: str) -> AsyncIterator[None]:
        """Tell that something is being done, again and again until the block ends."""
        telling = asyncio.create_task(self._tell(what))
        try:
            yield
        finally:
            telling.cancel()

    async def _tell(self, what: str) -> None:
        began = time.monotonic()
        while True:
            seconds = time.monotonic() - began
            await self._request.report_progress(seconds, message=f"{what} ({seconds:.0f} s)")
            await asyncio.sleep(_TELL_SECONDS)
