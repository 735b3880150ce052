"""The gateway as a process: TLS to the vendor, streaming, and who says no when nobody answers."""

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web

from alive_kit.authz import AuthzServer, TurnTokens

KEY = "canary-vendor-key"
BOUND = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A running gateway."""

    url: str
    tokens: TurnTokens
    authz: AuthzServer
    token: str

    async def post(self, path: str = "/v1/messages", **headers: str) -> int:
        """Send a request with a good token and return the status."""
        async with aiohttp.ClientSession() as http:
            sent = {"x-api-key": self.token, **headers}
            async with http.post(self.url + path, data=b"{}", headers=sent) as answer:
                return answer.status


class Vendor:
    """A vendor's API over TLS, which keeps the headers and paths it saw."""

    def __init__(self, name: str) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.authority = trustme.CA()
        self.go_on = asyncio.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(name).configure_cert(self._context)
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Serve and return the port."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context)
        await site.start()
        try:
            yield self._runner.addresses[0][1]
        finally:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path_qs, {name.lower(): value for name, value in request.headers.items()}))
        await request.read()
        if not request.path.endswith("/count_tokens"):
            return web.Response(text="{}")
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await self.go_on.wait()
        await response.write(b"second")
        return response


@contextlib.asynccontextmanager
async def running(vendor: Vendor, port: int, *, authority: trustme.CA | None = None) -> AsyncIterator[Gateway]:
    """Run a gateway in front of a vendor."""
    with tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "key").write_text(f"{KEY}\n")
        (authority or vendor.authority).cert_pem.write_to_path(str(directory / "ca.pem"))
        route = {
            "name": "some",
            "listen": str(free_port()),
            "upstream": f"https://localhost:{port}/base",
            "paths": "/v1/messages(/count_tokens)?",
            "header": "x-api-key",
            "key_file": str(directory / "key"),
            "authz_socket": str(directory / "authz.sock"),
        }
        tokens = TurnTokens()
        authz = AuthzServer(tokens, f"unix:{directory}/authz.sock")
        await authz.start()
        environment = {
            "ALIVE_GATEWAY_ROUTES": json.dumps([route]),
            "ALIVE_STATE_DIR": name,
            "ALIVE_GATEWAY_CA_FILE": str(directory / "ca.pem"),
        }
        with process(environment):
            await until_listening(int(str(route["listen"])))
            yield Gateway(url=f"http://127.0.0.1:{route['listen']}", tokens=tokens, authz=authz, token=tokens.issue())
        await authz.stop()


@contextlib.contextmanager
def process(environment: dict[str, str]) -> Iterator[None]:
    """Run the gateway's process."""
    command = [sys.executable, "-m", "alive_gateway"]
    gateway = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        gateway.terminate()
        gateway.wait(timeout=BOUND)


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until_listening(port: int) -> None:
    """Wait until something listens on a port."""
    async with asyncio.timeout(BOUND):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


@pytest.fixture
async def vendor() -> AsyncIterator[tuple[Vendor, int]]:
    """Return a vendor called localhost, and its port."""
    vendor = Vendor("localhost")
    async with vendor.serving() as port:
        yield vendor, port


async def test_the_key_takes_the_tokens_place(vendor: tuple[Vendor, int]) -> None:
    """Nothing else of the agent's credentials passes, and the base URL's path comes first."""
    async with running(*vendor) as gateway:
        headers = {"authorization": "Bearer own", "cookie": "own", "x-forwarded-for": "1.2.3.4"}
        status = await gateway.post("/v1/messages?beta=true", **headers)
    ((path, seen),) = vendor[0].seen

    assert status == 200
    assert path == "/base/v1/messages?beta=true"
    assert seen["x-api-key"] == KEY
    assert seen["host"].startswith("localhost")
    assert not {"authorization", "cookie"} & seen.keys()


async def test_a_revoked_token_is_refused(vendor: tuple[Vendor, int]) -> None:
    """At once, and the vendor hears nothing."""
    async with running(*vendor) as gateway:
        before = await gateway.post()
        gateway.tokens.revoke(gateway.token)
        after = await gateway.post()

    assert (before, after) == (200, 401)
    assert len(vendor[0].seen) == 1


async def test_without_an_answer_the_answer_is_no(vendor: tuple[Vendor, int]) -> None:
    """The provider's service is gone."""
    async with running(*vendor) as gateway:
        await gateway.authz.stop()
        status = await gateway.post()

    assert status == 403
    assert vendor[0].seen == []


async def test_a_vendor_that_nobody_vouches_for_gets_no_key(vendor: tuple[Vendor, int]) -> None:
    """Another authority, and another name."""
    impostor = Vendor("elsewhere.example")
    async with running(*vendor, authority=trustme.CA()) as gateway:
        by_authority = await gateway.post()
    async with impostor.serving() as port, running(impostor, port) as gateway:
        by_name = await gateway.post()

    assert (by_authority, by_name) == (503, 503)
    assert vendor[0].seen == impostor.seen == []


async def test_answers_are_not_held_back(vendor: tuple[Vendor, int]) -> None:
    """The second half is only written once the first has been read."""
    async with running(*vendor) as gateway, aiohttp.ClientSession() as http, asyncio.timeout(BOUND):
        headers = {"x-api-key": gateway.token}
        async with http.post(f"{gateway.url}/v1/messages/count_tokens", data=b"{}", headers=headers) as answer:
            first = await answer.content.readexactly(5)
            vendor[0].go_on.set()
            second = await answer.content.read()

    assert (first, second) == (b"first", b"second")


def test_a_wrong_setting_is_one_line_and_exit_code_2() -> None:
    """The variable is named."""
    command = [sys.executable, "-m", "alive_gateway"]
    ended = subprocess.run(command, env={}, capture_output=True, text=True, check=False, timeout=BOUND)

    assert ended.returncode == 2
    assert "ALIVE_GATEWAY_ROUTES" in ended.stderr
