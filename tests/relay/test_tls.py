"""Mutual TLS: whom the router lets in, whom a provider lets in, and certificates that are replaced while both run."""

from pathlib import Path

import grpc
import pytest
from pydantic import ValidationError

from alive.agent.v1 import agent_service_pb2_grpc
from alive_kit.settings import ServiceSettings
from alive_kit.testing.fakes import FakeProvider
from alive_kit.testing.harness import collect, request, serving
from alive_kit.tls import TlsFiles, channel_credentials
from alive_router.service import RouterService
from alive_router.settings import RouterSettings
from alive_stack.certificates import make_certificates


def shown(certificates: Path, name: str, clients: str) -> dict[str, Path]:
    """Return the settings of a service that shows its certificate and lets in whom an authority vouches for."""
    return {
        "tls_cert_file": certificates / f"{name}.pem",
        "tls_key_file": certificates / f"{name}.key",
        "tls_clients_ca_file": certificates / f"{clients}-ca.pem",
    }


async def run_as(certificates: Path, holder: str, authority: str, port: int) -> list[str]:
    """Run a turn over a new connection, showing somebody's certificate; return the kinds of its events."""
    files = TlsFiles(
        cert=certificates / f"{holder}.pem",
        key=certificates / f"{holder}.key",
        authorities=certificates / f"{authority}-ca.pem",
    )
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.secure_channel(f"localhost:{port}", channel_credentials(files), options=options) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        events = await collect(stub.StartTurn(request("go"), timeout=20))
    return [str(event.WhichOneof("kind")) for event in events]


async def test_only_whom_an_authority_vouches_for_is_let_in(tmp_path: Path, database: str) -> None:
    """A caller at the router, the router at the provider; then with new certificates, without a restart."""
    certificates = tmp_path / "certificates"
    make_certificates(certificates, {"fake": 0})
    tls = shown(certificates, "fake", "router")
    async with serving(FakeProvider(), tmp_path, listen="localhost:0", **tls) as caller:
        assert caller.service is not None
        port = caller.service.server.port
        settings = RouterSettings(
            listen="localhost:0",
            providers={"fake": f"localhost:{port}"},
            workspaces=tmp_path / "workspaces",
            state_dir=tmp_path,
            database_url=database,
            tls_providers_ca_file=certificates / "providers-ca.pem",
            **shown(certificates, "router", "callers"),
        )
        router = await RouterService.create(settings)
        await router.start()
        try:
            assert (await run_as(certificates, "caller", "router", router.server.port))[-1] == "turn_completed"
            for holder, authority, where in (
                ("fake", "router", router.server.port),
                ("caller", "providers", port),
                ("fake", "providers", port),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await run_as(certificates, holder, authority, where)
                assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE

            old = tmp_path / "old"
            old.mkdir()
            for path in certificates.iterdir():
                (old / path.name).write_bytes(path.read_bytes())
            make_certificates(certificates, {"fake": 0})

            assert (await run_as(certificates, "caller", "router", router.server.port))[-1] == "turn_completed"
            with pytest.raises(grpc.aio.AioRpcError):
                await run_as(old, "caller", "router", router.server.port)
        finally:
            await router.stop(0.0)


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051", "agents.example:443"])
def test_an_address_that_others_can_reach_needs_tls(tmp_path: Path, listen: str) -> None:
    """The refusal names what to set."""
    with pytest.raises(ValidationError, match="ALIVE_TLS_CERT_FILE"):
        ServiceSettings(listen=listen, workspaces=tmp_path, state_dir=tmp_path)


def test_files_for_tls_belong_together(tmp_path: Path) -> None:
    """A certificate without its key is a mistake, not a wish for none."""
    with pytest.raises(ValidationError, match="belong together"):
        ServiceSettings(listen="127.0.0.1:0", workspaces=tmp_path, state_dir=tmp_path, tls_cert_file=tmp_path / "a")
