"""The router's connections to the providers."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

import grpc

from alive.agent.v1 import agent_service_pb2, agent_service_pb2_grpc, outcome_service_pb2_grpc, provider_pb2
from alive_kit.errors import ProviderNotFound, ProviderNotReady
from alive_kit.tls import TlsFiles, channel_credentials
from alive_router.breaker import Breaker

_INFO_SECONDS = 2.0
_CONNECT_SECONDS = 2.0
_OLD_CHANNEL_SECONDS = 3600.0
"""How long streams may go on over a connection whose certificate has been replaced."""

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A provider that was away is found again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

_DOWN = {grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN}


class ProviderLink:
    """The connection to one provider."""

    def __init__(self, provider_id: str, endpoint: str, tls: TlsFiles | None) -> None:
        self.provider_id = provider_id
        self.endpoint = endpoint
        self.breaker = Breaker(clock=time.monotonic)
        self._tls = None if endpoint.startswith("unix:") else tls
        self._open_channel()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The connection; a new one once certificates have been replaced."""
        if self._tls and self._tls.version() != self._version:
            closing = asyncio.create_task(self._channel.close(_OLD_CHANNEL_SECONDS))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._open_channel()
        return self._channel

    @property
    def stub(self) -> "agent_service_pb2_grpc.AgentServiceAsyncStub":
        """AgentService of the provider."""
        stub: agent_service_pb2_grpc.AgentServiceAsyncStub = agent_service_pb2_grpc.AgentServiceStub(self.channel)
        return stub

    @property
    def outcomes(self) -> "outcome_service_pb2_grpc.OutcomeServiceAsyncStub":
        """OutcomeService of the provider."""
        stub: outcome_service_pb2_grpc.OutcomeServiceAsyncStub
        stub = outcome_service_pb2_grpc.OutcomeServiceStub(self.channel)
        return stub

    def streaming(self, method: str) -> "grpc.aio.UnaryStreamMultiCallable[Any, Any]":
        """Return a method of AgentService whose responses stay the bytes they came as."""
        return self.channel.unary_stream(f"/alive.agent.v1.AgentService/{method}")

    @property
    def is_fine(self) -> bool:
        """Whether the provider is connected, and has taken the latest turns."""
        return not self.breaker.failures and self.channel.get_state() is grpc.ChannelConnectivity.READY

    async def connect(self) -> None:
        """Return once the provider can be reached.

        Raises:
            ProviderNotReady: it cannot.
        """
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                state = self.channel.get_state(try_to_connect=True)
                while state != grpc.ChannelConnectivity.READY:
                    if state in _DOWN:
                        raise self._unreachable()
                    await self.channel.wait_for_state_change(state)
                    state = self.channel.get_state(try_to_connect=True)
        except TimeoutError:
            raise self._unreachable() from None

    async def admit(self) -> None:
        """Return once the provider can be given a turn.

        Raises:
            ProviderNotReady: it cannot be reached, or could not take the latest turns.
        """
        if not self.breaker.admit():
            raise ProviderNotReady(
                self.provider_id,
                "it could not take the latest turns: it is tried again soon",
                retry_after=self.breaker.wait(),
            )
        try:
            await self.connect()
        except ProviderNotReady:
            self.breaker.failed()
            raise

    async def info(self) -> provider_pb2.ProviderInfo:
        """Return what the provider says of itself; that it cannot be reached when it does not answer."""
        request = agent_service_pb2.GetProviderInfoRequest()
        try:
            info = (await self.stub.GetProviderInfo(request, timeout=_INFO_SECONDS)).provider
        except grpc.aio.AioRpcError:
            state = provider_pb2.READINESS_STATE_NOT_READY
            readiness = provider_pb2.Readiness(state=state, reason=self._unreachable().metadata["why"])
            return provider_pb2.ProviderInfo(provider_id=self.provider_id, readiness=readiness)
        info.provider_id = self.provider_id
        return info

    async def close(self) -> None:
        """Close the connection, and those that it took the place of."""
        for closing in self._closing:
            closing.cancel()
        await self._channel.close()

    def _open_channel(self) -> None:
        self._version = self._tls.version() if self._tls else ()
        if self._tls:
            credentials = channel_credentials(self._tls)
            self._channel = grpc.aio.secure_channel(self.endpoint, credentials, options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(self.endpoint, options=_OPTIONS)

    def _unreachable(self) -> ProviderNotReady:
        return ProviderNotReady(self.provider_id, "it cannot be reached: start its service, or wait until it is back")


class ProviderLinks:
    """The connections to all providers that are switched on."""

    def __init__(self, endpoints: Mapping[str, str], tls: TlsFiles | None = None) -> None:
        self._links = {name: ProviderLink(name, endpoint, tls) for name, endpoint in endpoints.items()}

    def __iter__(self) -> Iterator[ProviderLink]:
        return iter(self._links.values())

    def __getitem__(self, provider_id: str) -> ProviderLink:
        if provider_id not in self._links:  # It had the turn, and has left the configuration since.
            raise ProviderNotFound(provider_id, self._links)
        return self._links[provider_id]

    async def close(self) -> None:
        """Close every connection."""
        for link in self._links.values():
            await link.close()
