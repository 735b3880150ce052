"""How agents get their boxes on one host: a launcher for each provider, where bubblewrap can build any."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alive_stack.declarations import AGENT_UIDS, BoxDeclaration, Declaration
from alive_stack.host import Host
from alive_stack.keys import BOX_PORT
from alive_stack.processes import Service

_PROGRAMS = ("bwrap", "socat", "setpriv", "prlimit")
_BUILD = ("bwrap", "--unshare-user", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc", "true")
_CAPABILITIES = ("setuid", "setgid", "kill")


def missing(*, is_root: bool) -> str:
    """Return why no box can be built on this host, with a cure; empty when it can."""
    if absent := [name for name in _PROGRAMS if not shutil.which(name)]:
        return f"{' and '.join(absent)} missing: apt-get install bubblewrap socat"
    uid = str(AGENT_UIDS[0])
    identity = ("setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--no-new-privs") if is_root else ()
    built = subprocess.run([*identity, *_BUILD], capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    if built.returncode:
        said = built.stderr.strip()
        return f"bubblewrap builds none ({said}): allow user namespaces, for example kernel.unprivileged_userns_clone=1"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launchers:
    """The launchers of a host."""

    host: Host
    venvs: Path
    environment: Mapping[str, str]
    """The operator's variables."""

    def service(self, provider: Declaration, box: BoxDeclaration) -> Service:
        """Return the launcher of a provider."""
        venv, python = (self.venvs / provider.name).resolve(), self.venvs / "launcher/bin/python"
        options = {
            "--socket": self.host.launcher_socket(provider.name),
            "--service-uid": provider.uid if self.host.is_root else os.geteuid(),
            "--program": self.environment.get(box.program_setting) or _program(venv, box),
            "--workspaces": self.host.workspaces,
            "--homes": self.host.homes(provider.name),
            "--gateway": self.host.gateway_socket(provider.name).parent,
            "--port": BOX_PORT,
            **({"--memory-mb": memory} if (memory := self.environment.get("ALIVE_BOX_MEMORY_MB")) else {}),
        }
        tools = own_tools(self.venvs)
        shown = [
            str(venv),
            *([str(tools.resolve())] if tools else []),
            *filter(None, self.environment.get("ALIVE_BOX_READ_ONLY", "").split(":")),
        ]
        several = [("--keep", name) for name in box.keep] + [("--read-only", path) for path in shown]
        words = [str(word) for option in (*options.items(), *several) for word in option]
        return Service(
            name=f"{provider.name}-launcher",
            command=(str(python), "-I", "-m", "alive_launcher", *words, *(["--nested"] if box.nested else [])),
            environment={"PATH": "/usr/sbin:/usr/bin:/bin", "LANG": "C.UTF-8"},
            uid=0,
            capabilities=_CAPABILITIES,
            log=self.host.logs / f"{provider.name}-launcher.log",
        )

    def settings_of(self, provider: Declaration) -> Mapping[str, str]:
        """Return what a provider's service is told of its launcher."""
        return {
            "ALIVE_LAUNCHER": str(self.host.launcher_socket(provider.name)),
            "ALIVE_HOMES": str(self.host.homes(provider.name)),
        }


def own_tools(venvs: Path) -> Path | None:
    """Return the environment of Alive's own tools, which agents start; None where it is not installed."""
    return venvs / "mcp" if (venvs / "mcp/bin").is_dir() else None


def _program(venv: Path, box: BoxDeclaration) -> Path:
    return next(venv.glob(f"lib/python*/site-packages/{box.program}"), venv / box.program)
