"""The demo: one coding task for every provider, on the scripted model, through the router."""

import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from rich.console import Console

from alive.agent.v1 import agent_service_pb2, agent_service_pb2_grpc, options_pb2
from alive_kit.testing.product import Product
from alive_kit.testing.product_sites import Sites
from alive_kit.testing.scripted_model.demo import PRODUCT_DEMO
from alive_kit.testing.scripted_model.script import SCRIPT
from alive_stack.apis import PRODUCT_KEY_FILE, PRODUCT_URL
from alive_stack.declarations import declared
from alive_stack.host import Host
from alive_stack.show import Show
from alive_stack.stack import NotStarted, Stack, free_address
from alive_stack.up import ONE_UID

TASK = "Write greeting.py, a program that greets whoever is named on its command line, and try it."
FILE = "greeting.py"

_TURN_SECONDS = 120.0
_USER = options_pb2.ToolContext(user_id="demo", session_cookie="session=demo")


async def demo(checkout: Path, venvs: Path) -> int:
    """Run the demo and return the exit code: 0 when every agent wrote the file."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="alive-demo-", ignore_cleanup_errors=True) as name:
        try:
            async with _stack(checkout, venvs, Path(name)) as stack:
                if not stack.host.is_root:
                    console.print(f"[dim]{ONE_UID}[/]", soft_wrap=True)
                console.print("[dim]starting the router, the providers and the scripted model …[/]")
                async with stack.running():
                    failed = [
                        provider.name
                        for index, provider in enumerate(stack.providers)
                        if not await _give_task(stack, Show(console, provider.name, index), provider.name)
                    ]
        except NotStarted as error:
            console.print(f"[red]{error}[/]")
            return 1
    if failed:
        console.print(f"[red]did not do the task: {', '.join(failed)}[/]")
        return 1
    console.print(f"\n[bold]Every agent wrote {FILE}.[/] `make up` keeps the system running.", soft_wrap=True)
    return 0


@contextlib.asynccontextmanager
async def _stack(checkout: Path, venvs: Path, state: Path) -> AsyncIterator[Stack]:
    """Return a stack with a stand-in for the product behind its tools, which is there until the block ends."""
    sites = Sites(root=state / "workspaces")
    product = Product(secret=secrets.token_urlsafe(24), session=_USER.session_cookie, sites=sites)
    secret, script = state / "product.secret", state / "demo.json"
    secret.write_text(product.secret)
    script.write_bytes(SCRIPT.dump_json(PRODUCT_DEMO))
    async with product.serving() as url:
        yield Stack(
            host=Host.below(state),
            venvs=venvs,
            providers=declared(checkout),
            listen=free_address(),
            environment={"ALIVE_DRAIN_SECONDS": "1", PRODUCT_URL: url, PRODUCT_KEY_FILE: str(secret)},
            script=script,
        )


async def _give_task(stack: Stack, show: Show, provider_id: str) -> bool:
    """Give a provider the task, show its turn, and return whether it wrote the file."""
    workspace_id = f"demo-{provider_id}"
    workspace = stack.host.make_workspace(workspace_id)
    request = agent_service_pb2.StartTurnRequest(
        workspace_id=workspace_id,
        provider_id=provider_id,
        input=[options_pb2.InputPart(text=TASK)],
        tool_context=_USER,
    )
    last = ""
    async with grpc.aio.insecure_channel(stack.listen) as channel:
        stub: agent_service_pb2_grpc.AgentServiceAsyncStub = agent_service_pb2_grpc.AgentServiceStub(channel)
        try:
            async for response in stub.StartTurn(request, timeout=_TURN_SECONDS):
                for event in response.events:
                    show.event(event)
                    last = event.WhichOneof("kind") or ""
        except grpc.aio.AioRpcError as error:
            show.line(f"[bold red]{error.code().name}[/] {error.details()}")
    return last == "turn_completed" and (workspace / FILE).is_file()
