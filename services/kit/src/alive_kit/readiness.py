"""Knows whether the provider is ready: probes it when the service starts, and again and again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from alive.agent.v1 import provider_pb2
from alive_kit.errors import ProviderNotReady
from alive_kit.provider import Provider

logger = logging.getLogger(__name__)

PROBE_SECONDS = 20.0
"""How long one probe may take."""

_INTERVAL_READY = 30.0
_INTERVAL_NOT_READY = 3.0

OnChange = Callable[[provider_pb2.Readiness], Awaitable[None]]


class Readiness:
    """What the provider last said of itself."""

    def __init__(self, provider: Provider, on_change: OnChange) -> None:
        self._provider = provider
        self._on_change = on_change
        self.probed = asyncio.Event()
        """Set once the provider has been probed."""
        self.info = provider_pb2.ProviderInfo(
            provider_id=provider.provider_id,
            readiness=provider_pb2.Readiness(state=provider_pb2.READINESS_STATE_STARTING, reason="it has just started"),
        )

    def require(self) -> None:
        """Refuse unless the provider is ready.

        Raises:
            ProviderNotReady: with the reason.
        """
        if self.info.readiness.state != provider_pb2.READINESS_STATE_READY:
            raise ProviderNotReady(self._provider.provider_id, self.info.readiness.reason)

    async def keep_probing(self) -> None:
        """Probe for as long as the service runs: often while not ready, so that a cure shows soon."""
        while self.info.readiness.state != provider_pb2.READINESS_STATE_DRAINING:
            await self._probe()
            self.probed.set()
            ready = self.info.readiness.state == provider_pb2.READINESS_STATE_READY
            await asyncio.sleep(_INTERVAL_READY if ready else _INTERVAL_NOT_READY)

    async def drain(self) -> None:
        """Say that no new turns are taken."""
        info = provider_pb2.ProviderInfo()
        info.CopyFrom(self.info)
        info.readiness.state = provider_pb2.READINESS_STATE_DRAINING
        info.readiness.reason = "the service is going down"
        await self._set(info)

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                info = await self._provider.probe()
        except Exception as error:
            logger.exception("probe failed")
            info = provider_pb2.ProviderInfo(provider_id=self._provider.provider_id)
            info.readiness.state = provider_pb2.READINESS_STATE_NOT_READY
            info.readiness.reason = f"looking at the vendor's CLI failed: {type(error).__name__}"
        await self._set(info)

    async def _set(self, info: provider_pb2.ProviderInfo) -> None:
        changed = info.readiness != self.info.readiness
        self.info = info
        if changed:
            logger.info(
                "readiness: %s %s",
                provider_pb2.ReadinessState.Name(info.readiness.state).removeprefix("READINESS_STATE_").lower(),
                info.readiness.reason,
            )
            await self._on_change(info.readiness)
