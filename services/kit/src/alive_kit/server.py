"""Builds and runs a gRPC server: address, limits, health, reflection, drain.

Known by the router and by every provider service.
"""

import asyncio
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.rpc import error_details_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from alive_kit.tls import TlsFiles, server_credentials

# Reflection shows error details to grpcurl only when the process that answers knows their types.
_SHOWN_IN_ERRORS = error_details_pb2.DESCRIPTOR

MESSAGE_BYTES = 16 << 20
"""What a server accepts on the wire: more than the contract's 8 MiB, so that the contract's own refusal,
which names the field, is what a caller sees."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class Server:
    """A gRPC server with health and reflection."""

    def __init__(self, listen: str, tls: TlsFiles | None = None, *, metadata_bytes: int = 8 << 10) -> None:
        self._listen = listen
        self._tls = tls
        limits = (("grpc.max_metadata_size", metadata_bytes), ("grpc.absolute_max_metadata_size", 2 * metadata_bytes))
        self._server = grpc.aio.server(options=(*_OPTIONS, *limits))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._names = [health.SERVICE_NAME, reflection.SERVICE_NAME]
        self.port = 0
        """The TCP port that was bound; 0 for a unix socket."""

    def add(self, service: ServiceDescriptor, handler: grpc.GenericRpcHandler) -> None:
        """Serve a service."""
        self._server.add_generic_rpc_handlers([handler])
        self._names.append(service.full_name)

    async def start(self) -> None:
        """Bind the address and begin to serve.

        Raises:
            RuntimeError: the address is in use or not permitted.
            OSError: a certificate cannot be read.
        """
        reflection.enable_server_reflection(self._names, self._server)
        for address in self._listen.split(","):
            self._bind(address)
        await self._server.start()

    async def set_serving(self, services: Iterable[str], *, serving: bool) -> None:
        """Set what health says of services; the empty name is the whole server."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in services:
            await self._health.set(service, status)

    async def stop(self, grace: float) -> None:
        """Take no new calls and let running ones end within a grace (seconds)."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    def _bind(self, address: str) -> None:
        if address.startswith("unix:"):
            self._bind_socket(Path(address.removeprefix("unix:")))
        elif self._tls:
            self.port = self._server.add_secure_port(address, server_credentials(self._tls))
        else:
            self.port = self._server.add_insecure_port(address)

    def _bind_socket(self, path: Path) -> None:
        """Bind a unix socket that the group may use; its directory says who the group is."""
        path.unlink(missing_ok=True)
        before = os.umask(0o007)
        try:
            self._server.add_insecure_port(f"unix:{path}")
        finally:
            os.umask(before)


async def until_signalled() -> None:
    """Return when the process is asked to end by SIGTERM or SIGINT."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    await asked.wait()
