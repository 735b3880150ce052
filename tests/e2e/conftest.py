"""The whole system as an operator starts it, on the scripted model."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from alive_stack.stack import free_address

CHECKOUT = Path(__file__).parents[2]
VENVS = Path(sys.prefix).parent
BOUND = 60
READY = "Ctrl-C stops everything."

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give each service a UID of its own")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A system that runs."""

    address: str
    state: Path
    output: str
    process: "subprocess.Popen[str]"

    def grpcurl(self, arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run grpcurl against the router; the cookbook's address is replaced by the router's."""
        words = shlex.split(arguments.replace("127.0.0.1:50051", self.address))
        command = [str(VENVS / "stack/bin/grpcurl"), "-plaintext", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=BOUND)

    def pid(self, module: str) -> int:
        """Return the process of a service."""
        found = [int(entry.name) for entry in Path("/proc").iterdir() if self._is(entry, module)]
        assert len(found) == 1, f"{module}: {found}"
        return found[0]

    def uid(self, module: str) -> int:
        """Return the UID that a service runs under."""
        return Path(f"/proc/{self.pid(module)}").stat().st_uid

    def _is(self, entry: Path, module: str) -> bool:
        with contextlib.suppress(OSError, ValueError, IndexError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            return module.encode() in words and parent == self.process.pid
        return False


@contextlib.contextmanager
def up(
    *,
    checkout: Path = CHECKOUT,
    venvs: Path = VENVS,
    prefix: tuple[str, ...] = (),
    arguments: tuple[str, ...] = (),
    prepare: Callable[[Path], None] = lambda _state: None,
    **variables: str,
) -> Iterator[Running]:
    """Run the system under a temporary state directory until the block ends."""
    with tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True) as name:
        state = Path(name)
        state.chmod(0o777 if prefix else 0o711)
        prepare(state)
        address = free_address()
        own = {"ALIVE_STATE_DIR": name, "ALIVE_LISTEN": address, "ALIVE_DRAIN_SECONDS": "0", "ALIVE_OVERLOAD": "1000"}
        environment = {"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": name, **own, **variables}
        program = [*prefix, str(venvs / "stack/bin/alive-stack"), "--checkout", str(checkout)]
        process = subprocess.Popen(
            [*program, "up", "--venvs", str(venvs), *arguments],
            env=environment,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        killer = threading.Timer(BOUND, process.kill)
        killer.start()
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if READY in line:
                    break
            killer.cancel()
            output = "".join(lines)
            assert READY in output, output + logs(state)
            yield Running(address=address, state=state, output=output, process=process)
        finally:
            killer.cancel()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=BOUND)


def logs(state: Path) -> str:
    """Return what the services said, for a failure's message."""
    return "".join(f"--- {path.name}\n{path.read_text()}" for path in (state / "logs").glob("*.log"))


@pytest.fixture(scope="session")
def system() -> Iterator[Running]:
    """Return the system, running."""
    with up() as running:
        yield running


@pytest.fixture(scope="session")
def edge_system() -> Iterator[Running]:
    """Return the system with an edge before its router, running."""
    with up(ALIVE_EDGE="true") as running:
        yield running
