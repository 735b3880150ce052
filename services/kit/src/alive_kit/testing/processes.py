"""Services as processes of their own, for tests that kill them and look at what they use."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run with this Python."""

    words: Sequence[str]
    """As behind ``python``."""
    variables: Mapping[str, str]
    """All of its environment but ``PATH``."""


class Processes:
    """Programs that run, each by its name; what they log is kept beside each other in a directory."""

    def __init__(self, directory: Path, programs: Mapping[str, Program]) -> None:
        self._directory = directory
        self._programs = programs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        """Start some; all of them without a name."""
        for name in names or self._programs:
            program = self._programs[name]
            environment = {"PATH": "/usr/bin:/bin", **program.variables}
            with (self._directory / f"{name}.log").open("ab") as log:
                self._running[name] = subprocess.Popen(  # noqa: S603 - a test says what.
                    [sys.executable, *program.words], env=environment, stdout=log, stderr=log
                )

    def kill(self, name: str) -> None:
        """End one at once."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End all that run."""
        for name in list(self._running):
            self.kill(name)

    def pid(self, name: str) -> int:
        """Return the id of a process that runs.

        Raises:
            RuntimeError: it has ended; the text has the end of its log.
        """
        process = self._running[name]
        if process.poll() is not None:
            raise RuntimeError(f"{name} has ended ({process.returncode}): {self.log(name)[-1000:]}")
        return process.pid

    def memory(self, name: str) -> int:
        """Return how many bytes of memory one has."""
        return int(Path(f"/proc/{self.pid(name)}/statm").read_text().split()[1]) * _PAGE

    def log(self, name: str) -> str:
        """Return what one has logged."""
        return (self._directory / f"{name}.log").read_text(errors="replace")
