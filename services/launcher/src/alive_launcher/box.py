"""Describes a box: what an agent sees, what it may change, and what it may use up.

Everything here is arguments for bubblewrap (0.8). Nothing is started.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

GATEWAY = "/run/gateway"
"""Where the key gateway's socket is inside."""

_BRIDGE = (
    'socat "TCP-LISTEN:$0,bind=127.0.0.1,fork,reuseaddr" UNIX-CONNECT:/run/gateway/gateway.sock'
    ' </dev/null >/dev/null 2>&1 & exec "$@"'
)
"""The way out: a loopback port that leads to the gateway. It inherits nothing of the CLI's, or the CLI's pipes would
stay open when it ends."""

_SYSTEM = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs", "/etc/localtime", "/etc/mime.types")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is the same in every box of a launcher."""

    program: Path
    """The vendor's CLI: nothing else is ever started."""
    workspaces: Path
    homes: Path
    """Where the vendor's files of each workspace are kept: a directory for each, made on first use."""
    kept: tuple[str, ...]
    """What of a home outlives its box, for example ``.codex/sessions``. All else is gone with it."""
    read_only: tuple[Path, ...]
    """What can be read inside beside the system: the CLI's own directory, MCP servers."""
    gateway: Path | None
    """Directory of the key gateway's socket. The directory: the socket is another one after a restart."""
    port: int
    """Loopback port inside that leads to the gateway."""
    nested: bool
    """Whether the CLI builds boxes of its own inside; else no user namespace can be made there."""
    own_proc: bool = True
    """Whether a /proc can be mounted; else the one of the launcher is shown, read-only."""
    processes: int = 512
    file_bytes: int = 4 << 30
    memory_files_bytes: int = 512 << 20
    """Size of each file system that is in memory: the home, /tmp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One box."""

    workspace: str
    uid: int
    environment: Mapping[str, str]
    read_only: bool = False
    """Whether the agent may not write in its workspace either."""


def kept_directories(layout: Layout, box: Box) -> list[str]:
    """Return the directories that have to exist before the box can stand: the home first, then what is kept of it."""
    home = layout.homes / box.workspace
    return [str(home), *(str(home / name) for name in layout.kept)]


def accounts(uid: int) -> Mapping[str, str]:
    """Return the files by which programs inside know who they are and what loopback is."""
    return {
        "/etc/passwd": f"agent:x:{uid}:{uid}:agent:/:/bin/sh\n",
        "/etc/group": f"agent:x:{uid}:\n",
        "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }


def arguments(layout: Layout, box: Box, files: Mapping[str, int]) -> list[str]:
    """Return bubblewrap's arguments up to the command; files are descriptors by the path at which each is seen."""
    return [*_namespaces(layout, box), *_system(layout), *_own(layout, box), *_data(files), *_surroundings(layout, box)]


def bare(layout: Layout, uid: int) -> list[str]:
    """Return bubblewrap's arguments for a box in which there is no workspace: to see whether it can be built."""
    box = Box(workspace="", uid=uid, environment={})
    return [*_namespaces(layout, box), *_system(layout), "--setenv", "PATH", "/usr/sbin:/usr/bin:/bin"]


def command(layout: Layout, words: list[str]) -> list[str]:
    """Return what runs inside: the CLI within its limits, beside its way out."""
    limits = [f"--nproc={layout.processes}", "--nofile=8192", "--core=0", f"--fsize={layout.file_bytes}"]
    program = [str(layout.program), *words]
    if layout.gateway:
        program = ["sh", "-c", _BRIDGE, str(layout.port), *program]
    return ["prlimit", *limits, "--", *program]


def _namespaces(layout: Layout, box: Box) -> Iterator[str]:
    yield from ("--unshare-user", "--uid", str(box.uid), "--gid", str(box.uid))
    yield from ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
    yield from ("--die-with-parent", "--new-session", "--clearenv")
    if not layout.nested and layout.own_proc:  # It is switched off through /proc.
        yield "--disable-userns"


def _system(layout: Layout) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in ("bin", "sbin", "lib", "lib64"):
        yield from ("--symlink", f"usr/{name}", f"/{name}")
    for path in _SYSTEM:
        yield from ("--ro-bind-try", path, path)
    yield from ("--proc", "/proc") if layout.own_proc else ("--ro-bind", "/proc", "/proc")
    yield from ("--dev", "/dev")
    yield from ("--perms", "1777", "--size", str(layout.memory_files_bytes), "--tmpfs", "/tmp")  # noqa: S108  # Its own.
    yield from ("--dir", "/var", "--symlink", "../tmp", "/var/tmp", "--dir", "/run")  # noqa: S108


def _own(layout: Layout, box: Box) -> Iterator[str]:
    for path in layout.read_only:
        yield from ("--ro-bind", str(path), str(path))
    home, workspace = layout.homes / box.workspace, layout.workspaces / box.workspace
    yield from ("--perms", "0700", "--size", str(layout.memory_files_bytes), "--tmpfs", str(home))
    yield from ("--dir", str(home / "tmp"))
    for directory in kept_directories(layout, box)[1:]:
        yield from ("--bind", directory, directory)
    yield from ("--ro-bind" if box.read_only else "--bind", str(workspace), str(workspace))
    if layout.gateway:
        yield from ("--ro-bind", str(layout.gateway), GATEWAY)


def _data(files: Mapping[str, int]) -> Iterator[str]:
    for path, descriptor in files.items():
        yield from ("--ro-bind-data", str(descriptor), path)


def _surroundings(layout: Layout, box: Box) -> Iterator[str]:
    for name, value in box.environment.items():
        yield from ("--setenv", name, value)
    yield from ("--chdir", str(layout.workspaces / box.workspace), "--remount-ro", "/")
