"""What a provider needs around it: the vendor's CLI and a key, checked with a cure for each finding."""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

from alive_kit.launch import Launch

_VERSION_SECONDS = 10.0


class NotReady(Exception):
    """Something is missing; the text says what, and what would cure it."""


@dataclass(slots=True, kw_only=True)
class VendorCli:
    """A vendor's CLI on disk."""

    program: Path
    variable: str
    """The setting that names another program."""
    says: str
    """A word of its answer to ``--version`` that other programs do not say."""
    tested: str
    """The version this provider was tested with."""
    _known: tuple[tuple[int, ...], str] = field(default=((), ""), init=False)

    async def version(self, environment: dict[str, str]) -> str:
        """Return the CLI's version; it is started again only after the file has changed.

        Raises:
            NotReady: it is missing, cannot be executed, does not answer, or is older than what was tested.
        """
        try:
            found = self.program.stat()
        except OSError as error:
            raise NotReady(f"the CLI {self.program} cannot be read ({error.strerror}): set {self.variable}") from error
        if not os.access(self.program, os.X_OK) or not self.program.is_file():
            raise NotReady(f"the CLI {self.program} is not executable: make it so, or set {self.variable}")
        identity = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._known[0] != identity:
            self._known = (identity, await self._ask(environment))
        version = self._known[1]
        if _numbers(version) < _numbers(self.tested)[:2]:
            raise NotReady(
                f"the CLI is version {version}, older than {self.tested}: install that, or set {self.variable}"
            )
        return version

    async def _ask(self, environment: dict[str, str]) -> str:
        launch = Launch(self.program, environment)
        process = await asyncio.create_subprocess_exec(
            launch.executable,
            "--version",
            env=launch.variables(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_VERSION_SECONDS):
                output, _ = await process.communicate()
        except TimeoutError:
            raise NotReady(f"the CLI {self.program} does not answer --version: set {self.variable}") from None
        finally:
            await launch.end()
        said = output.decode(errors="replace")
        version = next((word for word in said.split() if word[:1].isdigit()), "")
        if process.returncode or not version or self.says not in said:
            raise NotReady(f"{self.program} does not answer --version as the vendor's CLI does: set {self.variable}")
        return version


def read_key(path: Path | None, variable: str) -> str:
    """Return the vendor's key, read anew each time so that it can be replaced while the service runs.

    Raises:
        NotReady: there is none.
    """
    if path is None:
        raise NotReady(f"no key: set {variable} to a file that holds it")
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotReady(f"the key file of {variable} cannot be read: {type(error).__name__}") from error
    if not key:
        raise NotReady(f"the key file of {variable} is empty: put the key into it")
    return key


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".") if part.isdigit())
