"""Looks at a deployment on this host and says what is wrong with it, with a cure for each finding."""

import os
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from alive.agent.v1 import provider_pb2, workspace_service_pb2, workspace_service_pb2_grpc
from alive_stack.declarations import AGENT_UIDS, GATEWAY_UID, ROUTER_UID, WORKSPACES_GID, Declaration, declared
from alive_stack.host import Host
from alive_stack.launchers import missing
from alive_stack.stack import shown_token

_CALL_SECONDS = 5.0

_WALL_CURES = {
    provider_pb2.WALL_LEVEL_NONE: "apt-get install bubblewrap socat, and start the stack again as root",
    provider_pb2.WALL_LEVEL_NAMESPACES_ONLY: "start the stack as root: each workspace then has its own UID",
    provider_pb2.WALL_LEVEL_SHARED_PROC: "let boxes have a /proc of their own: nothing may be mounted over parts of it",
}
"""What to do where agents have less than the whole wall around them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    cure: str = ""
    """What to do about it; empty when it is as it should be."""


async def doctor(checkout: Path, listen: str) -> int:
    """Print every finding and return the exit code: 0 when all is well."""
    findings = [finding async for finding in _findings(checkout, listen)]
    for finding in findings:
        print(f"bad  {finding.what}\n     cure: {finding.cure}" if finding.cure else f"ok   {finding.what}")
    bad = sum(bool(finding.cure) for finding in findings)
    print(f"\n{bad} of {len(findings)} need a cure." if bad else f"\nAll {len(findings)} are well.")
    return 1 if bad else 0


async def _findings(checkout: Path, listen: str) -> AsyncIterator[Finding]:
    host, providers = Host.from_environment(checkout), declared(checkout)
    if not host.state.is_dir():
        yield Finding(
            what=f"there is no {host.state}", cure="run `make up` first, or set ALIVE_STATE_DIR as it was set then"
        )
        return
    for finding in (*_separation(host, providers), *_secrets(host, providers), *_workspaces(host)):
        yield finding
    async for finding in _services(listen):
        yield finding


def _separation(host: Host, providers: list[Declaration]) -> Iterator[Finding]:
    """Look at who runs as whom, and at private directories."""
    if not host.is_root:
        yield Finding(what="every service shares your UID", cure="run `make up` as root: each then has its own")
        return
    expected = {"alive_router": ROUTER_UID, "alive_gateway": GATEWAY_UID}
    expected |= {provider.module: provider.uid for provider in providers}
    if reason := missing(is_root=True):
        yield Finding(what="agents have no boxes around them", cure=reason)
    else:
        expected["alive_launcher"] = 0
    for module, uid in expected.items():
        yield _process(module, uid, host)
    private = {"router": ROUTER_UID, "gateway": GATEWAY_UID} | {provider.name: provider.uid for provider in providers}
    for name, uid in private.items():
        yield _mode(host.private(name), uid=uid, mode=0o700)
    for provider in providers:
        yield _mode(host.socket(provider.name).parent, uid=provider.uid, mode=0o750)


def _process(module: str, uid: int, host: Host) -> Finding:
    found = {pid: Path(f"/proc/{pid}").stat().st_uid for pid in _running(module, host)}
    if not found:
        return Finding(what=f"{module} does not run", cure="start the stack with `make up`; its log says why it ended")
    if wrong := {pid: owner for pid, owner in found.items() if owner != uid}:
        return Finding(what=f"{module} runs under UID {wrong}, not {uid}", cure="end it, and let the stack start it")
    return Finding(what=f"{module} runs under UID {uid}")


def _running(module: str, host: Host) -> Iterator[int]:
    """Return the processes that run a service of this deployment: another one may run on the same machine."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command, variables = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue  # It ended meanwhile.
            words = command.split(b"\0")
            if b"-m" in words and module.encode() in words and f"{host.state}/".encode() in command + variables:
                yield int(entry.name)


def _mode(path: Path, *, uid: int, mode: int) -> Finding:
    try:
        found = path.stat()
    except OSError as error:
        return Finding(what=f"{path}: {error.strerror}", cure="start the stack with `make up`: it makes it")
    if (found.st_uid, stat.S_IMODE(found.st_mode)) != (uid, mode):
        what = f"{path} belongs to {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}"
        return Finding(what=what, cure=f"chown {uid} {path} && chmod {mode:o} {path}")
    return Finding(what=f"{path} is its service's own")


def _secrets(host: Host, providers: list[Declaration]) -> Iterator[Finding]:
    """Look at the keys: who could read them, and who holds one."""
    for path in sorted((host.state / "secrets").glob("*/*")) if os.access(host.state / "secrets", os.R_OK) else []:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o377:
            yield Finding(what=f"{path} has mode {mode:o}", cure=f"chmod 400 {path}")
        else:
            yield Finding(what=f"{path} is readable for its owner alone")
    for module in ("alive_router", *(provider.module for provider in providers)):
        if any(b"_API_KEY_FILE=" in _environment(pid) for pid in _running(module, host)):
            cure = "declare [tool.alive.service.gateway] for it: the key gateway then keeps its key"
            yield Finding(what=f"{module} reads a vendor's key itself", cure=cure)


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _workspaces(host: Host) -> Iterator[Finding]:
    """Look at whether each workspace has a UID of its own, and whether the services may use it."""
    owners: dict[int, str] = {}
    for path in sorted(host.workspaces.iterdir()) if host.is_root and host.workspaces.is_dir() else []:
        found, cure = path.stat(), f"make workspace NAME={path.name}"
        if found.st_gid != WORKSPACES_GID or found.st_mode & 0o070 != 0o070:
            yield Finding(what=f"the services may not use workspace {path.name}", cure=cure)
        elif found.st_uid not in AGENT_UIDS:
            yield Finding(what=f"workspace {path.name} belongs to UID {found.st_uid}, which is no agent's", cure=cure)
        elif found.st_uid in owners:
            what = f"workspaces {owners[found.st_uid]} and {path.name} share UID {found.st_uid}"
            yield Finding(what=what, cure=f"chown root {path} && {cure}")
        else:
            yield Finding(what=f"workspace {path.name} has UID {found.st_uid} to itself")
        owners.setdefault(found.st_uid, path.name)


async def _services(listen: str) -> AsyncIterator[Finding]:
    """Look at the router and, through it, at the providers."""
    request, token = workspace_service_pb2.ListProvidersRequest(), shown_token(os.environ)
    async with grpc.aio.insecure_channel(listen) as channel:
        stub: workspace_service_pb2_grpc.WorkspaceServiceAsyncStub
        stub = workspace_service_pb2_grpc.WorkspaceServiceStub(channel)
        try:
            is_open = await _is_open(stub)
            answer = await stub.ListProviders(request, timeout=_CALL_SECONDS, metadata=token)
        except grpc.aio.AioRpcError as error:
            if error.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}:
                cure = "set ALIVE_TOKEN_FILE to the token of a caller with the scope providers"
                yield Finding(what=f"the router on {listen} knows its callers, and not this one", cure=cure)
                return
            cure = "start the stack with `make up`, or set ALIVE_LISTEN as it was set then"
            yield Finding(what=f"no router answers on {listen} ({error.code().name})", cure=cure)
            return
    yield Finding(what=f"the router answers on {listen}")
    if is_open:
        yield Finding(what="the router is OPEN to everybody on this host; ALIVE_CALLERS_FILE says who may call")
    else:
        yield Finding(what="the router lets in the callers of its file, and nobody else")
    for entry in answer.providers:
        yield _provider(entry)


async def _is_open(stub: "workspace_service_pb2_grpc.WorkspaceServiceAsyncStub") -> bool:
    """Whether anybody may call the router."""
    try:
        await stub.ListProviders(workspace_service_pb2.ListProvidersRequest(), timeout=_CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            return False
        raise
    return True


def _provider(entry: workspace_service_pb2.ProviderEntry) -> Finding:
    info = entry.info
    if not entry.usable:
        return Finding(what=f"provider {info.provider_id} takes no turns", cure=entry.reason)
    wall = provider_pb2.WallLevel.Name(info.wall_level).removeprefix("WALL_LEVEL_").lower()
    if cure := _WALL_CURES.get(info.wall_level):
        return Finding(
            what=f"provider {info.provider_id} takes turns behind less than the whole wall: {wall}", cure=cure
        )
    versions = f"service {info.versions.service}, SDK {info.versions.sdk or '-'}, CLI {info.versions.cli or '-'}"
    return Finding(what=f"provider {info.provider_id} is ready ({versions}; wall: {wall})")
