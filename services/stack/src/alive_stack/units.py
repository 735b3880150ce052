"""Writes systemd units that run what the stack would run, with the same UIDs and walls. As of systemd 252.

systemd keeps the services running, and adds what the stack cannot: limits on memory and processes by control group. One
unit makes the directories and hands the gateway its keys, and runs again whenever a key's file changes.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from alive_stack.processes import Service
from alive_stack.stack import Stack

_FIRST = "alive-prepare"

_EVERYWHERE = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
LockPersonality=yes
RestrictRealtime=yes
SystemCallArchitectures=native
"""

# Not for launchers: bubblewrap makes namespaces, and gives a box a /proc of its own only where none is masked.
_NO_BOXES = """\
CapabilityBoundingSet=
PrivateDevices=yes
ProtectControlGroups=yes
ProtectKernelTunables=yes
RestrictNamespaces=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
"""

_LIMITS = {"edge": ("512M", 256), "gateway": ("512M", 256), "router": ("512M", 256)}
_PROVIDER_LIMITS = ("1G", 512)
_LAUNCHER_LIMITS = ("4G", 4096)
"""The agents of a provider, all together: what a memory bomb can take."""


def write_units(directory: Path, stack: Stack, checkout: Path) -> list[Path]:
    """Write the units of a stack that is prepared, and return their files."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in _units(stack, checkout):
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)
        written.append(path)
    return written


def _units(stack: Stack, checkout: Path) -> Iterator[tuple[str, str]]:
    yield f"{_FIRST}.service", _prepare(stack, checkout)
    if sources := [str(source) for source in stack.keys.sources().values()]:
        yield f"{_FIRST}.path", _watch(sources)
    services = stack.services()
    for service in services:
        yield f"alive-{service.name}.service", _service(service, stack)
    wanted = " ".join(f"alive-{service.name}.service" for service in services)
    paths = f" {_FIRST}.path" if sources else ""
    yield "alive.target", f"[Unit]\nDescription=Alive Agents\nWants={wanted}{paths}\n\n{_INSTALL}"


_INSTALL = "[Install]\nWantedBy=multi-user.target\n"


def _prepare(stack: Stack, checkout: Path) -> str:
    words = [str(stack.venvs / "stack/bin/alive-stack"), "--checkout", str(checkout), "prepare"]
    return (
        "[Unit]\nDescription=Alive Agents: directories and keys\n\n[Service]\nType=oneshot\n"
        f"ExecStart={_command([*words, '--venvs', str(stack.venvs)])}\n{_variables(stack.environment)}"
    )


def _watch(sources: list[str]) -> str:
    paths = "".join(f"PathChanged={source}\n" for source in sources)
    return f"[Unit]\nDescription=Alive Agents: keys that are replaced\n\n[Path]\n{paths}Unit={_FIRST}.service\n"


def _service(service: Service, stack: Stack) -> str:
    is_launcher = service.uid == 0
    memory, tasks = _LAUNCHER_LIMITS if is_launcher else _LIMITS.get(service.name, _PROVIDER_LIMITS)
    # Delegated: it makes a control group for each box.
    walls = f"CapabilityBoundingSet={_capabilities(service)}\nDelegate=memory\n" if is_launcher else _NO_BOXES
    groups = " ".join(map(str, service.groups))
    return (
        f"[Unit]\nDescription=Alive Agents: {service.name}\nPartOf=alive.target\n"
        f"Requires={_FIRST}.service\nAfter={_FIRST}.service network-online.target\nWants=network-online.target\n\n"
        f"[Service]\nExecStart={_command(list(service.command))}\n{_variables(service.environment)}"
        f"User={service.uid}\nGroup={service.uid}\n{f'SupplementaryGroups={groups}' if groups else ''}\n"
        "UMask=0007\nRestart=always\nRestartSec=1\nKillMode=mixed\nTimeoutStopSec=45\n"
        f"MemoryMax={memory}\nTasksMax={tasks}\nReadWritePaths={stack.host.state} {stack.host.workspaces}\n"
        f"{_EVERYWHERE}{walls}"
    )


def _capabilities(service: Service) -> str:
    return " ".join(f"CAP_{name.upper()}" for name in service.capabilities)


def _command(words: list[str]) -> str:
    return " ".join(_quoted(word) for word in words)


def _variables(environment: Mapping[str, str]) -> str:
    return "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in sorted(environment.items()))


def _quoted(word: str) -> str:
    """Return a word as systemd reads it: no specifier, no variable, no escape of its own."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
