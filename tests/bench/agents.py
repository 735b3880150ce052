"""The real CLIs in their boxes, on the scripted model, behind a router: what turns of real agents are measured on."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from alive_kit import launch
from alive_kit.launch import MARKER
from alive_kit.testing import boxes
from alive_kit.testing.harness import Caller, calling, serving
from alive_kit.testing.scripted_model import ScriptedModel
from alive_router.service import RouterService
from alive_router.settings import RouterSettings

from ..conformance.conftest import KEY, PROVIDERS, boxed, configured

__all__ = ["PROVIDERS", "Agents", "agents", "cli_processes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agents:
    """Every provider behind a router."""

    caller: Caller
    """Calls the router."""
    model: ScriptedModel
    services: dict[str, Caller]
    """Call the providers directly."""


@contextlib.asynccontextmanager
async def agents() -> AsyncIterator[Agents]:
    """Run every provider, with boxes around its agents, and a router, until the block ends."""
    launch.adopt_orphans()
    async with contextlib.AsyncExitStack() as exits:
        temporary = tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True)
        directory = Path(exits.enter_context(temporary))
        directory.chmod(0o711)
        model = await exits.enter_async_context(ScriptedModel(key=KEY))
        services, endpoints = {}, {}
        for name in PROVIDERS:
            home = directory / name
            (home / "bin").mkdir(parents=True)
            home.chmod(0o711)
            (home / "key").write_text(KEY)
            variables = await boxed(name, home, model, exits)
            with configured(name, boxes.URL, home / "key", **variables) as create:
                provider = create()
            serve = serving(provider, home, homes=home / "homes")
            services[name] = await exits.enter_async_context(serve)
            boxes.give_to_agent(home / "workspaces/demo")
            endpoints[name] = f"unix:{home}/agent.sock"
        workspaces = directory / "workspaces"
        (workspaces / "demo").mkdir(parents=True)
        listen = f"unix:{directory}/router.sock"
        settings = RouterSettings(listen=listen, providers=endpoints, workspaces=workspaces, state_dir=directory)
        router = await RouterService.create(settings)
        await router.start()
        exits.push_async_callback(router.stop, 0.0)
        caller = await exits.enter_async_context(calling(listen, workspaces))
        yield Agents(caller=caller, model=model, services=services)


def cli_processes() -> Iterator[int]:
    """Yield the vendors' CLIs that run in boxes of this process's agents."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_cli = entry.name.isdigit() and (entry / "exe").readlink().name.startswith(("claude", "codex", "node"))
            if is_cli and f"{MARKER}=".encode() in (entry / "environ").read_bytes():
                yield int(entry.name)
