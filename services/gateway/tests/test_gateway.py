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
from yarl import URL

from alive_kit.authz import AuthzServer, TurnTokens

KEY = "canary-vendor-key"
SECRET = "canary-product-secret"
BOUND = 15
GRANTS = {
    "product": {"cookie": "session=canary", "x-alive-workspace-id": "demo", "x-alive-user-id": "ada"},
    "mcp/notes": {"authorization": "Bearer canary-of-ada"},
}
FORGED = {
    "cookie": "session=forged",
    "authorization": "Bearer forged",
    "x_api_key": "forged",
    "x_alive_user_id": "eve",
    "x_alive_workspace_id": "victim",
    "x_alive_role": "admin",
    "x_internal_tools_secret": "forged",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A running gateway."""

    url: str
    tokens: TurnTokens
    authz: AuthzServer
    token: str

    async def post(self, path: str = "/v1/messages", **headers: str) -> int:
        """Send a request as a CLI does, with a good token, and return the status."""
        status, _ = await self.ask("POST", path, {"x-api-key": self.token, **headers})
        return status

    async def call(self, path: str, *, method: str = "POST", token: str = "", **headers: str) -> tuple[int, list[str]]:
        """Send a request as a tool does and return the status and the names of the answer's headers."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask(method, path, {"x-turn-token": token or self.token, **sent})

    async def ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, list[str]]:
        """Send a request and return the status and the names of the answer's headers."""
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, URL(self.url + path, encoded=True), data=b"{}", headers=headers) as answer,
        ):
            return answer.status, [name.lower() for name in answer.headers]


class Vendor:
    """A vendor's API over TLS, which keeps the headers and paths it saw."""

    def __init__(self, name: str) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.authority = trustme.CA()
        self.go_on = asyncio.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(name).configure_cert(self._context)
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
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
            return web.Response(text="{}", headers={"set-cookie": "session=renewed"})
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
        product = {"upstream": f"https://localhost:{port}/alive", "key_file": str(directory / "secret")}
        (directory / "secret").write_text(f"{SECRET}\n")
        environment = {
            "ALIVE_GATEWAY_ROUTES": json.dumps([route]),
            "ALIVE_GATEWAY_PRODUCT": json.dumps(product),
            "ALIVE_GATEWAY_MCP_SERVERS": json.dumps({"notes": f"https://localhost:{port}/notes/mcp"}),
            "ALIVE_STATE_DIR": name,
            "ALIVE_GATEWAY_CA_FILE": str(directory / "ca.pem"),
        }
        with process(environment):
            await until_listening(int(str(route["listen"])))
            token = tokens.issue()
            tokens.begin(token, GRANTS)
            yield Gateway(url=f"http://127.0.0.1:{route['listen']}", tokens=tokens, authz=authz, token=token)
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


async def test_a_token_is_refused_between_turns(vendor: tuple[Vendor, int]) -> None:
    """At once, and the vendor hears nothing; the next turn of the same agent has it honoured again."""
    async with running(*vendor) as gateway:
        during = await gateway.post()
        gateway.tokens.end(gateway.token)
        between = await gateway.post()
        gateway.tokens.begin(gateway.token, GRANTS)
        again = await gateway.post()

    assert (during, between, again) == (200, 401, 200)
    assert len(vendor[0].seen) == 2


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

    assert (by_authority, by_name) == (504, 504)
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


async def test_the_product_is_told_for_whom_a_call_is(vendor: tuple[Vendor, int]) -> None:
    """By the gateway alone: what the agent says of it is forgotten, and neither a key nor the token is shown."""
    async with running(*vendor) as gateway:
        status, answered = await gateway.call("/product/api/files/delete?x=1", **FORGED)
    ((path, seen),) = vendor[0].seen

    assert status == 200
    assert path == "/alive/api/files/delete?x=1"
    assert {**GRANTS["product"], "x-internal-tools-secret": SECRET}.items() <= seen.items()
    assert not {"authorization", "x-api-key", "x-alive-role", "x-turn-token"} & seen.keys()
    assert "forged" not in str(seen)
    assert "set-cookie" not in answered


async def test_an_mcp_server_gets_the_turns_own_bearer(vendor: tuple[Vendor, int]) -> None:
    """At its one address, with every method of the protocol."""
    async with running(*vendor) as gateway:
        statuses = [
            (await gateway.call("/mcp/notes", method=name, mcp_session_id="7"))[0] for name in ("POST", "GET", "DELETE")
        ]
        elsewhere, _ = await gateway.call("/mcp/notes/admin")

    assert statuses == [200, 200, 200]
    assert elsewhere == 404
    for path, seen in vendor[0].seen:
        assert path == "/notes/mcp"
        assert seen["authorization"] == "Bearer canary-of-ada"
        assert seen["mcp-session-id"] == "7"
        assert "canary" not in seen.get("x-api-key", "") + seen.get("x-internal-tools-secret", "")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/product/api/files/delete"),
        ("POST", "/product/api/admin"),
        ("POST", "/product/api/files/delete/../../admin"),
        ("POST", "/product/api/files/delete/"),
        ("POST", "/product"),
        ("POST", "/v1/../product/api/admin"),
    ],
)
async def test_only_what_is_listed_can_be_called(vendor: tuple[Vendor, int], method: str, path: str) -> None:
    """Exactly: by method and by path."""
    async with running(*vendor) as gateway:
        status, _ = await gateway.call(path, method=method)

    assert status in {401, 404}
    assert vendor[0].seen == []


async def test_a_turn_calls_only_what_it_was_granted(vendor: tuple[Vendor, int]) -> None:
    """Another turn's token opens the vendor and nothing else; none opens nothing."""
    async with running(*vendor) as gateway:
        plain = gateway.tokens.issue()
        gateway.tokens.begin(plain)
        to_vendor = await gateway.post(**{"x-api-key": plain})
        to_product, _ = await gateway.call("/product/api/files/delete", token=plain)
        to_server, _ = await gateway.call("/mcp/notes", token=plain)
        made_up, _ = await gateway.call("/product/api/files/delete", token="made-up")

    assert to_vendor == 200
    assert (to_product, to_server, made_up) == (401, 401, 401)
    assert len(vendor[0].seen) == 1


def test_a_wrong_setting_is_one_line_and_exit_code_2() -> None:
    """The variable is named."""
    command = [sys.executable, "-m", "alive_gateway"]
    ended = subprocess.run(command, env={}, capture_output=True, text=True, check=False, timeout=BOUND)

    assert ended.returncode == 2
    assert "ALIVE_GATEWAY_ROUTES" in ended.stderr
