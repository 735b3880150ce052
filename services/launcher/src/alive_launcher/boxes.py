"""Starts boxes, waits for them, and ends them. A box is over when its last process is."""

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from alive_launcher import census
from alive_launcher.box import Box, Layout, accounts, arguments, bare, command, kept_directories
from alive_launcher.memory import MemoryLimits

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_REMEMBERED = 10_000
_FACTS = """
for name in socat prlimit; do command -v $name >/dev/null || { echo "$name is missing" >&2; exit 1; }; done
ls -d /proc/[0-9]* | wc -l
grep -c : /proc/net/dev
grep NoNewPrivs /proc/self/status
read -r _
"""
"""What is looked at from inside a box, while it is looked at from outside."""

_PROBE_SECONDS = 10.0
_SWEEP_SECONDS = 1.0
_CLEAN_LOOKS = 2
"""How often nothing foreign must be found: one look may miss a process whose parent ends meanwhile."""

_FILES = """
what=$1; cd "$2" 2>/dev/null || exit 0; shift 2
for pattern; do
    for path in $pattern; do
        [ -e "$path" ] || continue
        echo "$path"
        [ "$what" = find ] || rm -rf -- "$path"
    done
done
"""


class CannotStart(Exception):
    """A box cannot be started; the text says why."""


@dataclass(slots=True, kw_only=True)
class Boxes:
    """The boxes of one launcher."""

    layout: Layout
    is_root: bool
    """Whether boxes can be given UIDs of their own."""
    memory: MemoryLimits
    _running: dict[str, "Running"] = field(default_factory=dict)
    _ended: dict[str, None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, box_id: str, box: Box, words: Sequence[str], files: Mapping[str, int], client: "Client") -> int:
        """Run a box until its CLI ends or its client goes away, and return the CLI's exit code.

        Raises:
            CannotStart: it was ended before it began, or bubblewrap cannot build it.
        """
        with self.memory.group() as limited:
            with self._lock:  # Whoever ends a box that has not begun yet must not meet it afterwards.
                if box_id in self._ended or box_id in self._running:
                    raise CannotStart("it has been ended, or it runs already")
                running = self._running[box_id] = self._start(box, [*limited], words, files, client.standard)
            try:
                return running.wait(client.connection)
            finally:
                with self._lock:
                    self._remember(box_id)

    def end(self, box_id: str) -> None:
        """End a box, or see to it that it never begins; return when none of its processes is left."""
        with self._lock:
            running = self._running.get(box_id)
            if running is None:
                self._remember(box_id)
        if running:
            running.end()

    def mark(self, box_id: str) -> None:
        """Take note of the processes of a box before a turn.

        Raises:
            CannotStart: there is no such box.
        """
        self._standing(box_id).mark()

    def sweep(self, box_id: str) -> bool:
        """End the processes of a box that were not there at its mark; return whether exactly those that were are left.

        Raises:
            CannotStart: there is no such box.
        """
        return self._standing(box_id).sweep()

    def _standing(self, box_id: str) -> "Running":
        with self._lock:
            running = self._running.get(box_id)
        if running is None:
            raise CannotStart("there is no such box")
        return running

    def end_all(self) -> None:
        """End every box."""
        with self._lock:
            running = list(self._running.values())
        for box in running:
            box.end()

    def files(self, what: str, home: Path, uid: int, patterns: Sequence[str]) -> bool:
        """Find or delete what shell patterns below a home match, and return whether there was anything.

        It is done as the home's UID: what that may not delete stays.

        Raises:
            CannotStart: something is left.
        """
        identity = _identity(uid if self.is_root else None)
        words = [*identity, "sh", "-c", _FILES, "sh", what, str(home), *patterns]
        done = subprocess.run(  # noqa: S603  # the patterns were checked
            words, env=_ENVIRONMENT, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
        if done.returncode:
            raise CannotStart(f"not everything could be deleted: {done.stderr.strip()}")
        return bool(done.stdout)

    def probe(self, uid: int) -> Mapping[str, object]:
        """Build a box and return what stands, as it is seen from inside.

        Raises:
            CannotStart: bubblewrap cannot build one, with or without a /proc of its own.
        """
        errors = []
        for own_proc in (True, False):
            self.layout = replace(self.layout, own_proc=own_proc)
            try:
                return self._look(uid)
            except CannotStart as error:
                errors.append(str(error))
        raise CannotStart("; ".join(errors))

    def _look(self, uid: int) -> Mapping[str, object]:
        read, write = os.pipe()
        identity = _identity(uid if self.is_root else None)
        process = subprocess.Popen(  # noqa: S603  # Our own words.
            [*identity, "bwrap", *bare(self.layout, uid), "--info-fd", str(write), "--", "sh", "-c", _FACTS],
            env=_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(write,),
        )
        os.close(write)
        first = _first_process(read)
        kernel_uid = _kernel_uid(first) if first else -1
        said, complaint = process.communicate("\n", timeout=_PROBE_SECONDS)
        if process.returncode:
            raise CannotStart(complaint.strip() or "bubblewrap says nothing")
        return _facts(said, own_uid=kernel_uid not in {os.geteuid(), -1}, own_proc=self.layout.own_proc)

    def _start(
        self,
        box: Box,
        limited: Sequence[str],
        words: Sequence[str],
        files: Mapping[str, int],
        standard: Sequence[int],
    ) -> "Running":
        with contextlib.ExitStack() as opened:
            seen = {path: _in_memory(text.encode(), opened) for path, text in accounts(box.uid).items()} | dict(files)
            read, write = os.pipe()
            opened.callback(os.close, write)
            # Not on the command line, which everybody can read: there is a token among the variables.
            told = [*arguments(self.layout, box, seen), "--info-fd", str(write)]
            told_in = _in_memory(b"".join(word.encode() + b"\0" for word in told), opened)
            # As the agent's UID already: what is kept of a home is made by its owner.
            make = f"umask 077 && mkdir -p -- {shlex.join(kept_directories(self.layout, box))} && umask 007"
            run = ["sh", "-c", f'{make} && exec bwrap --args {told_in} -- "$@"', "sh", *command(self.layout, [*words])]
            try:
                process = subprocess.Popen(  # noqa: S603  # Our own words.
                    [*limited, *_identity(box.uid if self.is_root else None), *run],
                    env=_ENVIRONMENT,
                    cwd="/",
                    stdin=standard[0],
                    stdout=standard[1],
                    stderr=standard[2],
                    pass_fds=(told_in, write, *seen.values()),
                )
            except OSError as error:
                os.close(read)
                raise CannotStart(str(error)) from error
        return Running(process, read)

    def _remember(self, box_id: str) -> None:
        self._running.pop(box_id, None)
        self._ended[box_id] = None
        while len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who asked for a box: it lives as long as the connection does."""

    connection: socket.socket
    standard: Sequence[int]
    """Descriptors of its standard input, output and error."""


class Running:
    """A box that stands. One thread waits for it; any thread may end it."""

    def __init__(self, process: "subprocess.Popen[bytes]", info: int) -> None:
        self._process = process
        self._info = info
        self._first: int | None = None
        self._first_process = 0
        self._marked: set[census.Process] | None = None
        self._built = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()

    def wait(self, connection: socket.socket) -> int:
        """Return the CLI's exit code when no process of the box is left; a client that goes away ends it."""
        process = _first_process(self._info)
        first = _pidfd(process) if process else None
        with self._lock:
            self._first, self._first_process = first, process or 0
        self._built.set()
        if first is not None:
            waited: list[socket.socket | int] = [connection, first]
            select.select(waited, [], [])
            self._kill()
            select.select([first], [], [])  # The first process of a PID namespace is the last to go.
            with self._lock:
                self._first = None
            os.close(first)
        code = self._process.wait()
        self._over.set()
        return code if code >= 0 else 128 - code

    def mark(self) -> None:
        """Take note of its processes."""
        self._built.wait()
        with contextlib.suppress(OSError):  # Without a mark every sweep fails.
            self._marked = census.inside(self._first_process)

    def sweep(self) -> bool:
        """End what was not there at the mark; return whether exactly the rest is left, and the bridge's connections."""
        if not self._marked:
            return False
        looks, due = 0, time.monotonic() + _SWEEP_SECONDS
        while time.monotonic() < due:
            found = census.inside(self._first_process)
            foreign = found - self._marked - census.bridges(self._marked)
            if not foreign and (looks := looks + 1) == _CLEAN_LOOKS:
                return self._marked <= found
            for process in foreign:
                looks = 0
                census.kill(process)
            if foreign:
                time.sleep(0.002)
        return False

    def end(self) -> None:
        """End it, and return when no process of it is left."""
        self._built.wait()
        self._kill()
        self._over.wait()

    def _kill(self) -> None:
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._first is not None:
                signal.pidfd_send_signal(self._first, signal.SIGKILL)


def _identity(uid: int | None) -> list[str]:
    """Return the words that make a process nobody but an agent, for good."""
    dropped = ["--no-new-privs", "--inh-caps=-all", "--pdeathsig", "KILL", "--"]
    if uid is None:
        return ["setpriv", *dropped]
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *dropped]


def _facts(said: str, *, own_uid: bool, own_proc: bool) -> Mapping[str, object]:
    processes, interfaces, privileges = said.strip().splitlines()
    return {
        "own_uid": own_uid,
        "own_proc": own_proc and int(processes) < 10,
        "network": int(interfaces) > 1,
        "no_new_privileges": privileges.endswith("1"),
    }


def _first_process(info: int) -> int | None:
    """Return the first process of a box, as this side knows it; None when bubblewrap has failed."""
    with open(info, encoding="utf-8") as told:  # Ends when bubblewrap has said it, or is gone.
        said = told.read()
    return int(json.loads(said)["child-pid"]) if said.strip() else None


def _kernel_uid(process: int) -> int:
    """Return the UID a process has outside of its box. Inside it is what the box makes of it."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return -1
    return int(status.partition("\nUid:")[2].split()[0])


def _in_memory(content: bytes, opened: contextlib.ExitStack) -> int:
    descriptor = os.memfd_create("box")
    opened.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _pidfd(process: int) -> int | None:
    try:
        return os.pidfd_open(process)
    except ProcessLookupError:
        return None


def log(text: str) -> None:
    """Say what was done."""
    print(text, file=sys.stderr, flush=True)
