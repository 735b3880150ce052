"""Limits the memory of each box by a control group of its own, where the launcher may make any.

Where it may not (a container without a writable /sys/fs/cgroup, a launcher that is not root) only the limit around the
launcher itself holds: the container's, or the unit's.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_JOIN = 'echo 0 > "$0/cgroup.procs" && exec "$@"'
"""Joins a group before anything else is done, so that no child can be left outside."""


class MemoryLimits:
    """The groups of one launcher."""

    def __init__(self, limit: int, mount: Path = _MOUNT) -> None:
        self._limit = limit
        self._numbers = itertools.count(1)
        self._parent: Path | None
        self._parent, self._file = _version_1(mount) or _version_2(mount) or (None, "")
        try:
            with self.group():
                pass
        except OSError:
            self._parent = None
        if self._parent:
            _clear(self._parent)

    @property
    def hold(self) -> bool:
        """Whether boxes are limited one by one."""
        return self._parent is not None

    @contextlib.contextmanager
    def group(self) -> Iterator[list[str]]:
        """Make a group until the block ends, and return the words that start a command in it.

        Raises:
            OSError: it cannot be made.
        """
        if self._parent is None:
            yield []
            return
        group = self._parent / f"alive-{os.getpid()}-{next(self._numbers)}"
        group.mkdir()
        try:
            (group / self._file).write_text(str(self._limit))
            yield ["sh", "-c", _JOIN, str(group)]
        finally:
            with contextlib.suppress(OSError):  # A process that is being reaped may still be counted.
                group.rmdir()


def _clear(parent: Path) -> None:
    """Remove what launchers left behind that were killed."""
    for group in parent.glob("alive-*-*"):
        if not Path("/proc", group.name.split("-")[1]).exists():
            with contextlib.suppress(OSError):
                group.rmdir()


def _version_1(mount: Path) -> tuple[Path, str] | None:
    """Return where groups are made below the launcher's own, and the file of their limit."""
    own = _own_groups().get("memory")
    return (mount / "memory" / own.lstrip("/"), "memory.limit_in_bytes") if own else None


def _version_2(mount: Path) -> tuple[Path, str] | None:
    own = _own_groups().get("")
    if own is None:
        return None
    parent = mount / own.lstrip("/")
    with contextlib.suppress(OSError):
        # A group that hands the controller down may have no process of its own: the launcher moves into a leaf.
        (parent / "launcher").mkdir(exist_ok=True)
        (parent / "launcher/cgroup.procs").write_text("0")
        (parent / "cgroup.subtree_control").write_text("+memory")
    return parent, "memory.max"


def _own_groups() -> dict[str, str]:
    """Return the launcher's own group for each controller; that of version 2 has no name."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    groups = (line.split(":", 2) for line in lines)
    return {name: path for _, names, path in groups for name in names.split(",")}
