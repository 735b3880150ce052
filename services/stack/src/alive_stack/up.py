"""Runs the whole system until it is told to stop."""

import asyncio
import signal
from pathlib import Path

from alive.agent.v1 import provider_pb2, workspace_service_pb2
from alive_stack.declarations import declared
from alive_stack.host import Host
from alive_stack.stack import NotStarted, Stack, operator_environment

WORKSPACE = "demo"
"""The workspace that is there from the start."""

ONE_UID = "Not root: every service runs under your own UID, without walls between them. As root each has its own."

_CURL = """curl -H 'content-type: application/json' -d '{"workspace_id": "demo", "input": [{"text": "Hello"}]}'"""

NO_BOXES = "Agents have no boxes around them"

LISTEN = "127.0.0.1:50051"
"""Where the router serves unless ``ALIVE_LISTEN`` says otherwise."""


async def up(checkout: Path, venvs: Path, script: Path | None) -> int:
    """Run the system and return the exit code."""
    stack = stack_of(checkout, venvs, script)
    host = stack.host
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    if not host.is_root:
        print(ONE_UID)
    if stack.no_boxes:
        print(f"{NO_BOXES}: {stack.no_boxes}")
    print("starting the router and the providers …", flush=True)
    try:
        async with stack.running():
            host.make_workspace(WORKSPACE)
            _tell(stack, await stack.list_providers())
            await asked.wait()
            print("stopping …", flush=True)
    except NotStarted as error:
        print(error)
        return 1
    return 0


def stack_of(checkout: Path, venvs: Path, script: Path | None = None) -> Stack:
    """Return the stack that the operator's variables describe."""
    environment = operator_environment()
    return Stack(
        host=Host.from_environment(checkout),
        venvs=venvs,
        providers=declared(checkout),
        listen=environment.get("ALIVE_LISTEN") or LISTEN,
        environment=environment,
        script=script,
    )


def _tell(stack: Stack, providers: list[workspace_service_pb2.ProviderEntry]) -> None:
    print(f"\nalive is up on {stack.listen}")
    print(f"  workspaces {stack.host.workspaces}   (another one: make workspace NAME=…)")
    print(f"  state      {stack.host.state}")
    print(f"  logs       {stack.host.logs}")
    for entry in providers:
        print(f"  {_line(entry, stack)}")
    if stack.scripted:
        print(f"The scripted model at {stack.model_url} answers for {', '.join(stack.scripted)}: set")
        for provider in stack.providers:
            if provider.name in stack.scripted:
                print(f"  {' and '.join(sorted([*provider.secrets, *provider.scripted_model]))}")
        print("for the real vendor or any compatible endpoint.")
    print("\nPaste one of these (grpcurl comes with the stack):\n")
    print(f"  alias grpcurl='{stack.venvs}/stack/bin/grpcurl -plaintext'\n")
    for line in _lines([entry.info.provider_id for entry in providers]):
        print("  grpcurl " + line.replace("ADDRESS", stack.listen))
    if stack.front.has_edge and not stack.listen.startswith("unix:"):
        print(f"  {_CURL} http://{stack.listen}/alive.agent.v1.AgentService/StartTurn")
    print("\nCtrl-C stops everything.", flush=True)


def _line(entry: workspace_service_pb2.ProviderEntry, stack: Stack) -> str:
    info = entry.info
    if info.readiness.state != provider_pb2.READINESS_STATE_READY:
        return f"{info.provider_id:<10} not ready: {entry.reason}"
    uid = next((str(provider.uid) for provider in stack.providers if provider.name == info.provider_id), "")
    under = f", under UID {uid}" if stack.host.is_root and uid else ""
    return f"{info.provider_id:<10} ready: {info.display_name} {info.versions.cli}{under}"


def _lines(provider_ids: list[str]) -> list[str]:
    """Return the arguments of calls worth trying; ADDRESS stands for the router's."""
    agent, workspace = "alive.agent.v1.AgentService", "alive.agent.v1.WorkspaceService"
    start = '{"workspace_id": "demo", "provider_id": "%s", "input": [{"text": "Write greeting.py and try it."}]}'
    choose = '{"workspace_id": "demo", "settings": {"provider_id": "%s"}}'
    return [
        *(f"-d '{start % provider_id}' ADDRESS {agent}/StartTurn" for provider_id in provider_ids),
        *(f"-d '{choose % provider_id}' ADDRESS {workspace}/UpdateWorkspace" for provider_id in provider_ids[-1:]),
        f"ADDRESS {workspace}/ListProviders",
        "ADDRESS list",
    ]
