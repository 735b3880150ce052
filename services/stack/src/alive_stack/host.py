"""Directories, owners and modes on one host.

As root every service gets a UID of its own and a private directory. As anybody else all share one UID, and the owners
stay as they are.
"""

import contextlib
import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from alive_stack.declarations import AGENT_UIDS, EDGE_UID, GATEWAY_UID, ROUTER_UID, WORKSPACES_GID, Declaration

_USER, _GROUP, _OTHER, _NOBODY = 0x01, 0x04, 0x20, 0xFFFFFFFF
_GROUP_WRITES = struct.pack("<I" + "HHI" * 3, 2, _USER, 7, _NOBODY, _GROUP, 7, _NOBODY, _OTHER, 0, _NOBODY)
"""A default access list as Linux keeps it: version, then tag, permissions and id of owner, group and others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where everything lies."""

    state: Path
    workspaces: Path
    is_root: bool

    @classmethod
    def from_environment(cls, checkout: Path) -> "Host":
        """Return the places that ``ALIVE_STATE_DIR`` and ``ALIVE_WORKSPACES`` name, or else the usual ones."""
        is_root = os.geteuid() == 0
        usual = Path("/var/lib/alive") if is_root else checkout / "build" / "state"
        state = Path(os.environ.get("ALIVE_STATE_DIR") or usual).resolve()
        workspaces = Path(os.environ.get("ALIVE_WORKSPACES") or state / "workspaces").resolve()
        return cls(state=state, workspaces=workspaces, is_root=is_root)

    @classmethod
    def below(cls, state: Path) -> "Host":
        """Return a host that keeps everything below one directory."""
        return cls(state=state, workspaces=state / "workspaces", is_root=os.geteuid() == 0)

    @property
    def logs(self) -> Path:
        """Where the services' logs are."""
        return self.state / "logs"

    def socket(self, name: str) -> Path:
        """Return the unix socket of a provider."""
        return self.state / "run" / name / "agent.sock"

    @property
    def router_socket(self) -> Path:
        """The unix socket of the router, where an edge is before it."""
        return self.state / "run" / "router" / "router.sock"

    @property
    def edge_socket(self) -> Path:
        """The unix socket on which the router answers the edge."""
        return self.state / "run" / "router" / "authz.sock"

    def authz_socket(self, name: str) -> Path:
        """Return the unix socket on which a provider answers the key gateway."""
        return self.state / "run" / f"{name}-authz" / "authz.sock"

    def launcher_socket(self, name: str) -> Path:
        """Return the unix socket on which a provider's launcher is asked."""
        return self.state / "run" / f"{name}-launcher" / "launcher.sock"

    def gateway_socket(self, name: str) -> Path:
        """Return the unix socket on which the key gateway answers a provider's agents."""
        return self.state / "run" / f"{name}-gateway" / "gateway.sock"

    def gateway_key(self, name: str) -> Path:
        """Return the gateway's copy of a key."""
        return self.state / "secrets" / "gateway" / name

    def homes(self, name: str) -> Path:
        """Return the directory of what a vendor keeps of each workspace."""
        return self.state / "homes" / name

    def private(self, name: str) -> Path:
        """Return the private directory of a service."""
        return self.state / name

    def prepare(self, providers: list[Declaration]) -> None:
        """Make every directory, with the owner and the mode it needs.

        Raises:
            OSError: it cannot be made, or other UIDs could not reach it.
        """
        for place in (self.state, self.workspaces):
            self._check_reachable(place)
        for directory in (self.state, self.state / "run", self.state / "secrets", self.state / "homes"):
            self._make(directory, mode=0o711)
        self._make(self.logs, mode=0o700)
        self._make(self.workspaces, mode=0o2771, gid=WORKSPACES_GID)
        self._let_group_inherit(self.workspaces)
        self._make(self.private("router"), mode=0o700, uid=ROUTER_UID, gid=ROUTER_UID)
        self._make(self.private("gateway"), mode=0o700, uid=GATEWAY_UID, gid=GATEWAY_UID)
        self._make(self.private("edge"), mode=0o700, uid=EDGE_UID, gid=EDGE_UID)
        # What is made in it belongs to the edge's group: whoever comes by these sockets is the edge.
        self._make(self.router_socket.parent, mode=0o2750, uid=ROUTER_UID, gid=EDGE_UID)
        for provider in providers:
            # What is made in it belongs to the gateway's group: the gateway may ask, and nobody else.
            self._make(self.authz_socket(provider.name).parent, mode=0o2750, uid=provider.uid, gid=GATEWAY_UID)
            self._make(self.private(provider.name), mode=0o700, uid=provider.uid, gid=provider.uid)
            self._make(self.gateway_socket(provider.name).parent, mode=0o711, uid=GATEWAY_UID, gid=GATEWAY_UID)
            self._make(self.launcher_socket(provider.name).parent, mode=0o2750, gid=provider.uid)
            # Each agent makes its own, and cannot see or change another one's.
            self._make(self.homes(provider.name), mode=0o1733)
            # The router is in the provider's group: this directory is what tells it from others.
            self._make(self.socket(provider.name).parent, mode=0o750, uid=provider.uid, gid=provider.uid)

    def make_workspace(self, name: str) -> Path:
        """Make a workspace that every provider may use, or make a directory one, and return its directory."""
        path = self.workspaces / name
        path.mkdir(exist_ok=True)
        if self.is_root:
            self._adopt(path)
        return path

    def adopt_workspaces(self) -> None:
        """Make workspaces of the directories that were made by hand."""
        for path in self.workspaces.iterdir():
            if self.is_root and path.is_dir() and not path.is_symlink() and path.lstat().st_uid not in AGENT_UIDS:
                self._adopt(path)

    def _adopt(self, path: Path) -> None:
        """Give a workspace to a UID of its own, and let the group use it."""
        owner = path.stat().st_uid
        uid = owner if owner in AGENT_UIDS else self._free_uid(path.name)
        self._let_group_inherit(path)
        for directory, _, files, descriptor in os.fwalk(path, topdown=False):
            for name in files:
                os.chown(name, uid, WORKSPACES_GID, dir_fd=descriptor, follow_symlinks=False)
            if directory != str(path):
                os.fchown(descriptor, uid, WORKSPACES_GID)
        self._make(path, mode=0o2770, uid=uid, gid=WORKSPACES_GID)  # The last: whoever sees the owner finds it whole.

    def _free_uid(self, name: str) -> int:
        """Return the UID that had this workspace before, or one that has none and left nothing behind."""
        left = [(home.name, home.lstat().st_uid) for home in (self.state / "homes").glob("*/*")]
        taken = {path.lstat().st_uid for path in self.workspaces.iterdir()}
        former: list[int] = [owner for workspace, owner in left if workspace == name and owner in AGENT_UIDS]
        unused = sorted(set(AGENT_UIDS) - {owner for _, owner in left})
        free: list[int] = [uid for uid in (*former, *unused, *AGENT_UIDS) if uid not in taken]
        if free:
            return free[0]
        raise OSError(errno.ENOSPC, "every UID for agents has a workspace", str(self.workspaces))

    def keep_secret(self, service: str, name: str, content: str, uid: int) -> Path:
        """Write a secret that one service may read, and return its file."""
        directory = self.state / "secrets" / service
        self._make(directory, mode=0o500, uid=uid, gid=uid)
        path, fresh = directory / name.lower(), directory / f".{name.lower()}.new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        if self.is_root:
            os.chown(fresh, uid, uid)
        fresh.rename(path)  # Whoever watches it sees the old secret or the new one, never half of it.
        return path

    def _check_reachable(self, place: Path) -> None:
        """Refuse a place below a directory that only its owner may enter."""
        for parent in place.parents:
            is_ours = parent == self.state  # It is made so that others may pass.
            if self.is_root and not is_ours and parent.is_dir() and not parent.stat().st_mode & 0o001:
                raise PermissionError(errno.EACCES, "the services' UIDs cannot enter it", str(parent))

    def _let_group_inherit(self, directory: Path) -> None:
        """Have the group write what is made in a directory, by whomever and with whatever umask."""
        with contextlib.suppress(OSError):  # A file system without access lists: `make workspace` still works.
            os.setxattr(directory, "system.posix_acl_default", _GROUP_WRITES)

    def _make(self, path: Path, *, mode: int, uid: int = 0, gid: int = 0) -> None:
        existed = path.is_dir()
        path.mkdir(parents=True, exist_ok=True)
        if self.is_root:
            os.chown(path, uid, gid)
            path.chmod(mode)
        elif not existed:
            path.chmod((mode & 0o777) | 0o700)
