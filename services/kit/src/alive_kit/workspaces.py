"""Maps workspace ids to directories.

The id is the only thing a caller can say: the path comes from the service's own settings. A workspace exists when
its directory does. The vendor's files of a workspace (its home) lie under the service's state, never inside the
workspace.
"""

import functools
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from alive_kit.errors import WorkspaceNotFound
from alive_kit.validation import is_slug


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A workspace that exists."""

    workspace_id: str
    path: Path
    """The directory the agent works in."""
    home: Path
    """The vendor's home for this workspace, made on first use."""

    @property
    def tmp(self) -> Path:
        """A temporary directory of the workspace's own, beside the home."""
        return self.home / "tmp"

    def relative(self, path: str) -> str:
        """Return a path of the agent's as callers know it: relative where it lies inside the workspace."""
        full = self.path / path
        return str(full.relative_to(self.path)) if full.is_relative_to(self.path) else path


class Workspaces:
    """The workspaces under one directory."""

    def __init__(self, *, root: Path, homes: Path) -> None:
        self._root = root
        self._homes = homes

    def find(self, workspace_id: str) -> Workspace:
        """Return a workspace that exists.

        Raises:
            WorkspaceNotFound: it has no directory, or its directory is a link that leads elsewhere.
        """
        self.check(workspace_id)
        path = self._real_root / workspace_id
        return Workspace(workspace_id=workspace_id, path=path, home=self._homes / workspace_id)

    def check(self, workspace_id: str) -> None:
        """Refuse a workspace that does not exist.

        Raises:
            WorkspaceNotFound: it has no directory, or its directory is a link that leads elsewhere.
        """
        try:
            is_one = is_slug(workspace_id) and stat.S_ISDIR(os.lstat(f"{self._root}/{workspace_id}").st_mode)
        except OSError:  # There is none, or nobody told the service's UID about it.
            is_one = False
        if not is_one:
            raise WorkspaceNotFound(workspace_id)

    @functools.cached_property
    def _real_root(self) -> Path:
        return self._root.resolve()
