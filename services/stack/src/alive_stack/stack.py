"""The whole system on one host: which processes run, with what, and when all of them are ready."""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from alive.agent.v1 import provider_pb2, workspace_service_pb2, workspace_service_pb2_grpc
from alive_stack.apis import PRODUCT, PRODUCT_KEY_FILE, PRODUCT_URL, Apis
from alive_stack.declarations import GATEWAY_UID, MODEL_UID, WORKSPACES_GID, BoxDeclaration, Declaration
from alive_stack.front import COMMON, PASSED_ON, Front, given
from alive_stack.host import Host
from alive_stack.keys import KeptKey, KeyRing
from alive_stack.launchers import Launchers, missing, own_tools
from alive_stack.processes import Service, Supervisor

READY_SECONDS = 60.0

_WATCH_SECONDS = 0.2

_ROOM = (
    *("ALIVE_TURNS", "ALIVE_TURNS_PER_OWNER", "ALIVE_TURNS_PER_WORKSPACE"),
    *("ALIVE_QUEUE", "ALIVE_QUEUE_PER_OWNER", "ALIVE_QUEUE_PER_WORKSPACE"),
    *("ALIVE_BUSY_LOAD", "ALIVE_OVERLOAD"),
)
_PROVIDER_SETTINGS = (
    *PASSED_ON,
    *_ROOM,
    "ALIVE_DISCONNECT_GRACE_SECONDS",
    "ALIVE_SANDBOX",
    "ALIVE_TOOLS",
    "ALIVE_TOOLS_ASSETS",
    "ALIVE_TOOLS_STARTUP_SECONDS",
    "ALIVE_KEEP_SECONDS",
    "ALIVE_KEEP_BYTES",
    "ALIVE_OUTCOME_KEEP_SECONDS",
    "ALIVE_WARM_SECONDS",
    "ALIVE_WARM_AGE_SECONDS",
    "ALIVE_WARM_AGENTS",
    "ALIVE_WARM_AHEAD",
)
_PORTS = range(20_000, 32_768)
"""Where a free port is looked for: the kernel gives those above to whoever calls somebody, at any moment."""

_MCP_PATH = "/usr/local/bin:/usr/bin:/bin"


class NotStarted(Exception):
    """The stack did not become ready; the text says what to look at."""


@dataclass(slots=True, kw_only=True)
class Stack:
    """Router, providers and, where no vendor is configured, the scripted model."""

    host: Host
    venvs: Path
    providers: list[Declaration]
    listen: str
    environment: Mapping[str, str]
    """The operator's variables."""
    script: Path | None = None
    """A script for the scripted model instead of its own."""
    model_url: str = field(init=False, default="")
    scripted: list[str] = field(init=False, default_factory=list)
    """The providers that use the scripted model."""
    supervisor: Supervisor = field(init=False)
    keys: KeyRing = field(init=False)
    launchers: Launchers = field(init=False)
    front: Front = field(init=False)
    no_boxes: str = field(init=False)
    """Why agents have no boxes; empty when they have."""

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.host.is_root)
        self.keys = KeyRing(host=self.host, apis=Apis(environment=self.environment))
        self.launchers = Launchers(host=self.host, venvs=self.venvs, environment=self.environment)
        self.front = Front(
            host=self.host,
            venvs=self.venvs,
            providers=self.providers,
            listen=self.listen,
            environment=self.environment,
        )
        self.no_boxes = missing(is_root=self.host.is_root)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the system until the block ends.

        Raises:
            NotStarted: a service did not become ready in time.
        """
        _check_free(self.listen)
        self.scripted = [provider.name for provider in self.providers if self._is_scripted(provider)]
        self._make_directories()
        async with contextlib.AsyncExitStack() as exits:
            exits.push_async_callback(self.supervisor.stop)
            if self.scripted:
                await self._start_model()
            self.prepare()
            await self._start_gateway(exits)
            adopting = asyncio.create_task(self._adopt_workspaces(), name="workspaces")
            exits.callback(adopting.cancel)
            for provider in self.providers:
                if provider.box and self._has_box(provider):
                    await self._start_launcher(provider, provider.box)
                await self.supervisor.start(self._provider(provider))
            for service in self.front.services():
                await self.supervisor.start(service)
            await self._until_ready()
            yield

    def prepare(self) -> None:
        """Make every directory, and hand the gateway its keys; safe to repeat while everything runs.

        Raises:
            NotStarted: a directory cannot be made, or a key not be read.
        """
        self._make_directories()
        self.keys.kept = [key for provider in self.providers if (key := self._kept_key(provider))]
        try:
            self.keys.refresh()
        except OSError as error:
            raise NotStarted(f"the key file {error.filename} cannot be read ({error.strerror})") from error

    def services(self) -> list[Service]:
        """Return every service but the scripted model, once `prepare` has run, in the order in which they start."""
        boxed = [(provider, provider.box) for provider in self.providers if provider.box and self._has_box(provider)]
        return [
            *([self._gateway()] if self.keys.kept else []),
            *(self.launchers.service(provider, box) for provider, box in boxed),
            *(self._provider(provider) for provider in self.providers),
            *self.front.services(),
        ]

    def _make_directories(self) -> None:
        try:
            self.host.prepare(self.providers)
        except OSError as error:
            raise NotStarted(f"{error.filename}: {error.strerror}; set ALIVE_STATE_DIR or ALIVE_WORKSPACES") from error

    async def list_providers(self) -> list[workspace_service_pb2.ProviderEntry]:
        """Return what the router says of the providers; nothing when it wants to know who asks."""
        async with grpc.aio.insecure_channel(self.listen) as channel:
            stub: workspace_service_pb2_grpc.WorkspaceServiceAsyncStub
            stub = workspace_service_pb2_grpc.WorkspaceServiceStub(channel)
            try:
                answer = await stub.ListProviders(
                    workspace_service_pb2.ListProvidersRequest(),
                    wait_for_ready=True,
                    timeout=READY_SECONDS,
                    metadata=shown_token(self.environment),
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    return []
                raise
        return list(answer.providers)

    def _is_scripted(self, provider: Declaration) -> bool:
        names = (*provider.scripted_model, *provider.secrets)
        return bool(provider.scripted_model) and not any(self.environment.get(name) for name in names)

    async def _start_model(self) -> None:
        port = _free_port()
        self.model_url = f"http://127.0.0.1:{port}"
        key = self.host.keep_secret("scripted-model", "key", secrets.token_urlsafe(24), MODEL_UID)
        command = [str(self.venvs / "stack/bin/python"), "-m", "alive_kit.testing.scripted_model"]
        command += ["--listen", f"127.0.0.1:{port}", "--key-file", str(key)]
        if self.script:
            command += ["--script", str(self.script)]
        await self.supervisor.start(
            Service(
                name="scripted-model",
                command=tuple(command),
                environment=COMMON,
                uid=MODEL_UID,
                log=self.host.logs / "scripted-model.log",
            )
        )

    async def _start_gateway(self, exits: contextlib.AsyncExitStack) -> None:
        """Start the key gateway for every provider that has a key, and watch the keys."""
        if not self.keys.kept:
            return
        await self.supervisor.start(self._gateway())
        watching = asyncio.create_task(self.keys.watch(), name="keys")
        exits.callback(watching.cancel)
        await asyncio.gather(*(self._until_listening(key.listen) for key in self.keys.kept))

    def _gateway(self) -> Service:
        return Service(
            name="gateway",
            command=(str(self.venvs / "gateway/bin/python"), "-m", "alive_gateway"),
            environment={
                **COMMON,
                "ALIVE_STATE_DIR": str(self.host.private("gateway")),
                "ALIVE_GATEWAY_ROUTES": self.keys.routes(),
                **self.keys.apis.gateway_settings(self.host.gateway_key(PRODUCT)),
                **self._given(("ALIVE_GATEWAY_CA_FILE",)),
            },
            uid=GATEWAY_UID,
            log=self.host.logs / "gateway.log",
        )

    def _kept_key(self, provider: Declaration) -> KeptKey | None:
        """Return the key that the gateway keeps for a provider; None when it has none."""
        route = provider.gateway
        if route is None:
            return None
        source = self.environment.get(route.key_file)
        upstream = self.environment.get(route.base_url) or route.default_url
        if provider.name in self.scripted:
            source = str(self.host.state / "secrets" / "scripted-model" / "key")
            upstream = self.model_url + provider.scripted_model[route.base_url]
        if not source:
            return None
        boxed = self._has_box(provider)
        listen = f"unix:{self.host.gateway_socket(provider.name)}" if boxed else str(_free_port())
        return KeptKey(provider=provider, route=route, upstream=upstream, source=Path(source), listen=listen)

    async def _start_launcher(self, provider: Declaration, box: BoxDeclaration) -> None:
        """Start a provider's launcher and wait until it can be asked."""
        path = self.host.launcher_socket(provider.name)
        path.unlink(missing_ok=True)
        await self.supervisor.start(self.launchers.service(provider, box))
        with contextlib.suppress(TimeoutError):  # The provider's readiness will tell; the log says why.
            async with asyncio.timeout(READY_SECONDS / 4):
                while not path.exists():
                    await asyncio.sleep(0.05)

    def _has_box(self, provider: Declaration) -> bool:
        """Whether a provider's agents have boxes: they lead to the gateway, so it has to keep the key."""
        has_key = provider.gateway and (
            provider.name in self.scripted or self.environment.get(provider.gateway.key_file)
        )
        return bool(provider.box and has_key and not self.no_boxes)

    async def _adopt_workspaces(self) -> None:
        """Make workspaces of directories, for as long as this runs."""
        while True:
            with contextlib.suppress(FileNotFoundError):  # It is being made, or deleted.
                self.host.adopt_workspaces()
            await asyncio.sleep(_WATCH_SECONDS)

    async def _until_listening(self, listen: str) -> None:
        with contextlib.suppress(TimeoutError):  # Turns will tell; the log says why.
            async with asyncio.timeout(READY_SECONDS / 4):
                while not await listens(listen):
                    await asyncio.sleep(0.05)

    def _provider(self, provider: Declaration) -> Service:
        kept = self.keys.settings_of(provider)
        environment = {
            **COMMON,
            "ALIVE_LISTEN": f"unix:{self.host.socket(provider.name)}",
            "ALIVE_WORKSPACES": str(self.host.workspaces),
            "ALIVE_STATE_DIR": str(self.host.private(provider.name)),
            "ALIVE_MCP_PATH": self._mcp_path(),
            **self._given((*_PROVIDER_SETTINGS, *provider.settings)),
            **(kept or self._secrets(provider)),
            **(self.launchers.settings_of(provider) if self._has_box(provider) else {}),
        }
        return Service(
            name=provider.name,
            command=(str(self.venvs / provider.name / "bin/python"), "-m", provider.module),
            environment=environment,
            uid=provider.uid,
            groups=(WORKSPACES_GID,),
            log=self.host.logs / f"{provider.name}.log",
        )

    def _mcp_path(self) -> str:
        """Return where commands of MCP servers are found: first Alive's own."""
        tools, path = own_tools(self.venvs), self.environment.get("ALIVE_MCP_PATH") or _MCP_PATH
        return f"{tools.resolve()}/bin:{path}" if tools else path

    def _given(self, names: tuple[str, ...]) -> Mapping[str, str]:
        return given(self.environment, names)

    def _secrets(self, provider: Declaration) -> dict[str, str]:
        """Return where a provider finds its secrets: in copies that only it can read."""
        copies = {}
        for name in provider.secrets:
            if source := self.environment.get(name):
                content = _read_secret(name, Path(source))
                copies[name] = str(self.host.keep_secret(provider.name, name, content, provider.uid))
        return {**copies, **self._direct(provider)}

    def _direct(self, provider: Declaration) -> Mapping[str, str]:
        """Return how a provider without a gateway reaches the product."""
        secret = self.keys.apis.key_file
        if secret is None:
            return self._given((PRODUCT_URL,))
        copy = self.host.keep_secret(provider.name, PRODUCT, _read_secret(PRODUCT_KEY_FILE, secret), provider.uid)
        return {**self._given((PRODUCT_URL,)), PRODUCT_KEY_FILE: str(copy)}

    async def _until_ready(self) -> None:
        """Wait until the router serves and no provider is still starting."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                while await self._is_starting():
                    await asyncio.sleep(0.1)
        except (TimeoutError, grpc.aio.AioRpcError) as error:
            raise NotStarted(f"not ready within {READY_SECONDS:.0f} s: see the logs in {self.host.logs}") from error

    async def _is_starting(self) -> bool:
        """Whether a provider is still starting, or the router behind its edge."""
        try:
            return any(_is_starting(entry) for entry in await self.list_providers())
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return True
            raise


def _is_starting(entry: workspace_service_pb2.ProviderEntry) -> bool:
    readiness = entry.info.readiness
    return readiness.state == provider_pb2.READINESS_STATE_STARTING or "cannot be reached" in readiness.reason


def _read_secret(name: str, path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise NotStarted(f"{name}: {path} cannot be read ({error.strerror})") from error


def _check_free(listen: str) -> None:
    host, _, port = listen.rpartition(":")
    if listen.startswith("unix:") or not port.isdigit():
        return
    try:
        with socket.create_server((host, int(port))):
            return
    except OSError as error:
        cure = "stop what listens there, or set ALIVE_LISTEN to another address"
        raise NotStarted(f"{listen} cannot be used ({error.strerror}): {cure}") from error


async def listens(listen: str) -> bool:
    """Whether somebody listens on ``unix:/path``, or on a port of this host."""
    try:
        if listen.startswith("unix:"):
            _, writer = await asyncio.open_unix_connection(listen.removeprefix("unix:"))
        else:
            _, writer = await asyncio.open_connection("127.0.0.1", int(listen.rpartition(":")[2]))
    except OSError:
        return False
    writer.close()
    return True


def _free_port() -> int:
    """Return a port on which nothing listens.

    Raises:
        NotStarted: there is none.
    """
    for port in secrets.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise NotStarted(f"every port from {_PORTS[0]} to {_PORTS[-1]} is in use on this host")


def free_address(host: str = "127.0.0.1") -> str:
    """Return an address of this host on which nothing listens."""
    return f"{host}:{_free_port()}"


def operator_environment() -> Mapping[str, str]:
    """Return the variables of this project that the operator has set."""
    return {name: value for name, value in os.environ.items() if name.startswith(("ALIVE_", "ENABLE_"))}


def shown_token(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the metadata that shows the router the token in ``ALIVE_TOKEN_FILE``; none without it.

    Raises:
        NotStarted: it cannot be read.
    """
    path = environment.get("ALIVE_TOKEN_FILE")
    return (("authorization", f"Bearer {_read_secret('ALIVE_TOKEN_FILE', Path(path)).strip()}"),) if path else ()
