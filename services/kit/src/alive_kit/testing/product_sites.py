"""The websites of the product's stand-in: a workspace each, whose files it changes, and what it remembers of them."""

import re
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Answer = Mapping[str, object]

COOLDOWN_SECONDS = 10.0

_PROTECTED = frozenset({"index.ts", "index.js", "package.json", "tsconfig.json", "node_modules", ".git", ".well-known"})
_CACHES = ("node_modules/.vite", ".cache", ".swc")
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


class Refusal(Exception):
    """It is not done."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True, kw_only=True)
class Sites:
    """Every website."""

    root: Path | None = None
    """The directory of their workspaces; None where it has no files to change."""
    logs: defaultdict[str, list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))
    """What the server of each has logged, and when."""
    modes: dict[str, str] = field(default_factory=dict)
    """How each is served: ``dev`` or ``build``."""
    emails: dict[str, Answer] = field(default_factory=dict)
    """The mail that has started the automation of each."""
    hostnames: list[str] = field(default_factory=list)
    """Those that were made here."""
    restarted: dict[str, float] = field(default_factory=dict)

    def log(self, workspace: str, text: str, *, ago: float = 0.0) -> None:
        """Have the server of a website log something, some seconds ago."""
        self.logs[workspace].append((time.time() - ago, text))

    def restart(self, workspace: str) -> Answer:
        """Restart a website, its caches cleared."""
        passed = time.monotonic() - self.restarted.get(workspace, -COOLDOWN_SECONDS)
        if passed < COOLDOWN_SECONDS:
            raise Refusal(429, f"restarted {passed:.0f} s ago; wait {COOLDOWN_SECONDS - passed:.0f} s")
        self.restarted[workspace] = time.monotonic()
        cleared = [name for name in _CACHES if self.root and _delete(self.root / workspace / name)]
        self.log(workspace, "server restarted")
        return {"message": f"Restarted {workspace}; caches cleared: {', '.join(cleared) or 'none'}."}

    def delete(self, workspace: str, path: str, *, recursive: bool) -> Answer:
        """Delete a file or a directory of a workspace."""
        target = self._inside(workspace, path)
        if set(target.parts[len(self._workspace(workspace).parts) :]) & _PROTECTED:
            raise Refusal(403, f"{path} is protected")
        if target.is_dir() and not recursive:
            raise Refusal(409, f"{path} is a directory: set recursive")
        if not _delete(target):
            raise Refusal(404, f"{path} is not there")
        return {"message": f"Deleted {path}."}

    def read_logs(self, workspace: str, asked: Mapping[str, Any]) -> Answer:
        """Return the latest lines that fit."""
        wanted, text = re.compile(str(asked.get("searchRegex", ""))), str(asked.get("search", ""))
        since = _since(str(asked.get("since", "")))
        lines = [line for when, line in self.logs[workspace] if when >= since and text in line and wanted.search(line)]
        return {"lines": lines[-int(asked.get("lines", 100)) :]}

    def switch(self, workspace: str, mode: str, *, build_first: bool) -> Answer:
        """Serve a website another way."""
        if mode == "build" and build_first and not self._inside(workspace, "package.json").is_file():
            raise Refusal(409, "there is nothing to build: package.json is missing")
        self.modes[workspace] = mode
        self.log(workspace, f"serving in mode {mode}")
        return {"message": f"{workspace} is served in mode {mode}."}

    def make(self, slug: str, ideas: str) -> Answer:
        """Make a website, with a workspace of its own."""
        hostname = f"{slug}.example"
        if hostname in self.hostnames:
            raise Refusal(409, f"{hostname} is taken")
        self.hostnames.append(hostname)
        if self.root:
            (self.root / hostname).mkdir()
            (self.root / hostname / "README.md").write_text(f"# {slug}\n\n{ideas}\n")
        return {"hostname": hostname, "message": f"{hostname} is online."}

    def email(self, workspace: str) -> Answer:
        """Return the mail that has started an automation."""
        if workspace not in self.emails:
            raise Refusal(404, "no mail has started this")
        return self.emails[workspace]

    def all(self) -> Answer:
        """Return every website."""
        return {"sites": [{"id": hostname, "hostname": hostname} for hostname in self.hostnames]}

    def _workspace(self, workspace: str) -> Path:
        if self.root is None or not (self.root / workspace).is_dir():
            raise Refusal(404, f"there is no website {workspace}")
        return (self.root / workspace).resolve()

    def _inside(self, workspace: str, path: str) -> Path:
        """Return a path of a workspace, links on the way to it resolved."""
        root = self._workspace(workspace)
        target = (root / path).parent.resolve() / Path(path).name
        if ".." in Path(path).parts or not target.is_relative_to(root) or target == root:
            raise Refusal(403, f"{path} is outside of the workspace")
        return target


def _delete(path: Path) -> bool:
    """Delete whatever is at a path; return whether anything was."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return True
    existed = path.is_symlink() or path.exists()
    path.unlink(missing_ok=True)
    return existed


def _since(text: str) -> float:
    """Return when ``10 minutes ago`` was; the beginning of time for anything else."""
    ago = re.fullmatch(r"(\d+) (second|minute|hour|day)s? ago", text)
    return time.time() - int(ago[1]) * _UNITS[ago[2]] if ago else 0.0
