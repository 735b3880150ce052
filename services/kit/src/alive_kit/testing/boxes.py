"""A launcher for tests: real boxes around real CLIs, asked by this process."""

import asyncio
import contextlib
import os
import shutil
import struct
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

_PORT = 43005
_GROUP_WRITES = struct.pack("<I" + "HHI" * 3, 2, 1, 7, 0xFFFFFFFF, 4, 7, 0xFFFFFFFF, 0x20, 7, 0xFFFFFFFF)
"""A default access list: whoever makes something in a workspace, test or agent, the other may change it."""

URL = f"http://127.0.0.1:{_PORT}"
"""Where a box finds the model."""


def can_be_built() -> bool:
    """Whether this machine has what boxes are built with."""
    return all(shutil.which(name) for name in ("bwrap", "socat", "setpriv", "prlimit"))


@contextlib.asynccontextmanager
async def launcher(
    directory: Path, program: Path, *, keep: Iterable[str], nested: bool, read_only: Iterable[Path]
) -> AsyncIterator[Path]:
    """Run a launcher for the workspaces below a directory until the block ends, and return its socket.

    The directory of the model's socket is ``gateway``.
    """
    path = directory / "launcher.sock"
    for name in ("workspaces", "homes", "gateway"):
        (directory / name).mkdir(exist_ok=True)
    (directory / "homes").chmod(0o1733)
    options: list[str] = []
    for option, values in (("--keep", keep), ("--read-only", map(str, read_only))):
        options += [word for value in values for word in (option, value)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alive_launcher", "--socket", str(path), "--service-uid", str(os.geteuid())),
        *("--program", str(program), "--port", str(_PORT), "--gateway", str(directory / "gateway")),
        *("--workspaces", str(directory / "workspaces"), "--homes", str(directory / "homes")),
        *(*options, *(["--nested"] if nested else [])),
        env={"PATH": "/usr/sbin:/usr/bin:/bin"},
        stderr=asyncio.subprocess.PIPE,
    )
    said = b""
    assert process.stderr is not None
    while b"serving on" not in said:
        said = await process.stderr.readline()
        assert said, "the launcher has ended"
    draining = asyncio.create_task(_drain(process.stderr))
    try:
        yield path
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await draining


def give_to_agent(workspace: Path) -> None:
    """Give a workspace to a UID of its own, where that can be."""
    if os.geteuid():
        return
    taken = {path.stat().st_uid for path in workspace.parent.iterdir()}
    os.chown(workspace, next(uid for uid in range(45000, 46000) if uid not in taken), -1)
    with contextlib.suppress(OSError):
        os.setxattr(workspace, "system.posix_acl_default", _GROUP_WRITES)


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass
