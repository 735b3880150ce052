"""Counts the processes of a box, from outside.

A process is its number and its start: the number alone may be another one's later.
"""

import contextlib
import os
import signal
from pathlib import Path
from typing import TypeAlias

Process: TypeAlias = tuple[int, int]
"""Number, and start in clock ticks after boot."""

_BRIDGE = "socat"


def inside(first: int) -> set[Process]:
    """Return the processes of a box by its first one; those that have ended and wait to be reaped are none.

    Raises:
        OSError: this kernel does not tell who is whose child.
    """
    found: set[Process] = set()
    due = [first]
    while due:
        number = due.pop()
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            due += _children(number)
            if (process := _living(number)) is not None:
                found.add(process)
    return found


def bridges(processes: set[Process]) -> set[Process]:
    """Return the children of those among some processes that lead to the gateway: one for each connection."""
    found: set[Process] = set()
    for number, _ in processes:
        with contextlib.suppress(OSError):
            if _stat(number)[0] == _BRIDGE:
                found |= {child for pid in _children(number) if (child := _living(pid)) is not None}
    return found


def kill(process: Process) -> None:
    """Kill a process, and no other one that has its number by now."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(process[0])
        try:
            if _living(process[0]) == process:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _children(number: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{number}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found


def _living(number: int) -> Process | None:
    with contextlib.suppress(OSError):
        _, fields = _stat(number)
        if fields[0] not in "ZX":
            return number, int(fields[19])
    return None


def _stat(number: int) -> tuple[str, list[str]]:
    """Return a process's name and what its ``stat`` says after it."""
    text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    name, _, rest = text.partition("(")[2].rpartition(")")
    return name, rest.split()
