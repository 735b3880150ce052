"""What stands around the agents of a service: boxes where there is a launcher, and how good they are.

A provider asks here for every start of its CLI. How good the boxes are is found out by building one, not by settings.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic_settings import BaseSettings, SettingsConfigDict

from alive.agent.v1 import agent_service_pb2, options_pb2, provider_pb2
from alive_kit.apis import Apis
from alive_kit.capabilities import limited, supported
from alive_kit.launch import Box, Launch, ask
from alive_kit.provider import Unsupported
from alive_kit.surroundings import NotReady
from alive_kit.workspaces import Workspace

WallLevel: TypeAlias = "provider_pb2.WallLevel.ValueType"

_NO_NETWORK = "a box leads to the key gateway and nowhere else"

_NAMES = {
    provider_pb2.WALL_LEVEL_NONE: "none: agents are ordinary children of the service",
    provider_pb2.WALL_LEVEL_NAMESPACES_ONLY: "agents share the service's UID: the launcher is not root",
    provider_pb2.WALL_LEVEL_SHARED_PROC: "agents see the container's processes: run it with systempaths=unconfined",
}


class WallSettings(BaseSettings):
    """The variables that say what must stand."""

    model_config = SettingsConfigDict(env_prefix="ALIVE_", frozen=True, extra="ignore")

    launcher: Path | None = None
    """Unix socket of the launcher; without one agents have no boxes."""

    sandbox: Literal["prefer", "require"] = "prefer"
    """``require`` takes no turns unless the wall is complete; ``prefer`` uses what stands, and says so."""


class Walls:
    """The walls of one service."""

    def __init__(self, settings: WallSettings, apis: Apis) -> None:
        self._apis = apis
        self._launcher = settings.launcher
        self._required = settings.sandbox == "require"
        self.level: WallLevel = provider_pb2.WALL_LEVEL_NONE
        """What stood when it was last looked at."""

    @property
    def stand(self) -> bool:
        """Whether agents are started in boxes."""
        return self._launcher is not None

    def capabilities(self) -> Iterator[provider_pb2.Capability]:
        """Yield what the walls change, the same for every provider."""
        yield from self._apis.capabilities(boxed=self.stand)
        if self.stand:
            yield supported("permissions.sandbox.READ_ONLY")
            yield supported("permissions.sandbox.WORKSPACE_WRITE")
            yield limited("permissions.sandbox.FULL_ACCESS", "within its box: its workspace, and a home of its own")
            yield limited("permissions.network", f"only off: {_NO_NETWORK}")

    def refusals(self, request: agent_service_pb2.StartTurnRequest) -> Iterator[Unsupported]:
        """Yield the options that need what is beyond the walls."""
        yield from self._apis.refusals(request, boxed=self.stand)
        if self.stand and request.permissions.network:
            yield Unsupported(field="permissions.network", why=_NO_NETWORK)

    async def probe(self) -> None:
        """Look at what stands.

        Raises:
            NotReady: a launcher is named but builds no box, or less stands than is required.
        """
        self.level = await self._look()
        if self._required and self.level != provider_pb2.WALL_LEVEL_FULL:
            raise NotReady(f"ALIVE_SANDBOX=require, but {_NAMES[self.level]}")

    def launch(
        self,
        program: Path,
        environment: Mapping[str, str],
        workspace: Workspace,
        permissions: options_pb2.Permissions,
    ) -> Launch:
        """Return how a CLI is started for a workspace; its home exists then, or will in its box."""
        if self._launcher is None:
            for directory in (workspace.home, workspace.tmp):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Launch(program, environment, workspace)
        is_plan = permissions.approval_policy == options_pb2.APPROVAL_POLICY_PLAN
        read_only = is_plan or permissions.sandbox == options_pb2.SANDBOX_READ_ONLY
        return Launch(program, environment, workspace, Box(launcher=self._launcher, read_only=read_only))

    async def delete(self, workspace: Workspace, patterns: Sequence[str]) -> None:
        """Delete what the vendor keeps of a workspace below its home, by shell patterns.

        Raises:
            OSError: something of it is left, or the launcher does not answer.
        """
        if self._launcher is not None:
            await self._files("delete", workspace, patterns)
            return
        for pattern in patterns:
            for path in workspace.home.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)

    async def has(self, workspace: Workspace, patterns: Sequence[str]) -> bool:
        """Return whether the vendor keeps something of a workspace below its home, by shell patterns.

        Raises:
            OSError: the launcher does not answer.
        """
        if self._launcher is not None:
            return await self._files("find", workspace, patterns)
        return any(True for pattern in patterns for _ in workspace.home.glob(pattern))

    async def _files(self, what: str, workspace: Workspace, patterns: Sequence[str]) -> bool:
        assert self._launcher is not None
        answer = await ask(self._launcher, {what: list(patterns), "workspace": workspace.workspace_id})
        if "found" not in answer:
            raise OSError(answer.get("error") or "the launcher said nothing")
        return bool(answer["found"])

    async def _look(self) -> WallLevel:
        if self._launcher is None:
            return provider_pb2.WALL_LEVEL_NONE
        try:
            answer = await ask(self._launcher, {"probe": True})
        except OSError as error:
            raise NotReady(f"the launcher {self._launcher} does not answer ({error.strerror}): start it") from error
        if "facts" not in answer:
            reason = answer.get("error") or "it said nothing"
            raise NotReady(f"the launcher builds no box ({reason}): install bubblewrap and socat; see docs/security.md")
        facts = answer["facts"]
        if facts["network"] or not facts["no_new_privileges"]:
            raise NotReady("the launcher's boxes leak: they have a network, or can gain privileges")
        if not facts["own_uid"]:
            return provider_pb2.WALL_LEVEL_NAMESPACES_ONLY
        return provider_pb2.WALL_LEVEL_FULL if facts["own_proc"] else provider_pb2.WALL_LEVEL_SHARED_PROC
