"""Has the ledger book one provider's outcomes, for as long as the router runs.

The provider keeps them, so nothing is lost while the router, the provider or the database is away; the ledger books
each once, so nothing is counted twice when some are read again, or by a second router on the same database.
"""

import asyncio
import logging

import grpc

from alive.agent.v1 import outcome_service_pb2
from alive_kit.errors import StoreUnavailable
from alive_router.ledger import Ledger
from alive_router.providers import ProviderLink

logger = logging.getLogger(__name__)

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0


class Bookkeeper:
    """Reads the outcomes of one provider."""

    def __init__(self, link: ProviderLink, ledger: Ledger) -> None:
        self._link = link
        self._ledger = ledger
        self._delay = _FIRST_DELAY

    async def run(self) -> None:
        """Book outcomes until cancelled; begin again behind the last one booked whenever the provider comes back."""
        while True:
            try:
                await self._follow()
            except grpc.aio.AioRpcError as error:
                await self._refused(error)
            except StoreUnavailable:
                logger.warning("outcomes of %s cannot be booked: no database", self._link.provider_id)
            except Exception:
                logger.exception("outcomes of %s cannot be booked", self._link.provider_id)
            await asyncio.sleep(self._delay)
            self._delay = min(2 * self._delay, _LONGEST_DELAY)

    async def _follow(self) -> None:
        cursor = await self._ledger.cursor(self._link.provider_id)
        request = outcome_service_pb2.WatchOutcomesRequest(after_cursor=cursor)
        call = self._link.outcomes.WatchOutcomes(request, wait_for_ready=True)
        try:
            while isinstance(response := await call.read(), outcome_service_pb2.WatchOutcomesResponse):
                await self._ledger.book(self._link.provider_id, response.outcomes)
                self._delay = _FIRST_DELAY
        finally:
            call.cancel()

    async def _refused(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() is grpc.StatusCode.OUT_OF_RANGE:
            logger.error(
                "%s no longer keeps the outcomes behind the last one booked: some may be missing in the ledger",
                self._link.provider_id,
            )
            await self._ledger.forget_cursor(self._link.provider_id)
        elif error.code() is not grpc.StatusCode.UNAVAILABLE:
            logger.warning("%s does not tell outcomes: %s", self._link.provider_id, error.details())
