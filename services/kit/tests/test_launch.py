"""What a vendor CLI gets, and what is left of it afterwards."""

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path

import pytest

from alive_kit.launch import Box, Launch, adopt_orphans, marked

LAUNCHER = Path(__file__).parents[1] / "bin" / "alive-launch"


class SourceLaunch(Launch):
    """A launch whose launcher is the one of this checkout."""

    @property
    def executable(self) -> Path:
        """The launcher beside the kit's sources."""
        return LAUNCHER


async def started(launch: Launch, *arguments: str) -> asyncio.subprocess.Process:
    """Start a CLI as a vendor SDK does: with our variables merged over its own process's."""
    return await asyncio.create_subprocess_exec(
        launch.executable,
        *arguments,
        env={**os.environ, **launch.variables()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_cli_sees_exactly_the_declared_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the service's own environment gets through, its settings and secrets included."""
    monkeypatch.setenv("ALIVE_SECRET", "canary")
    launch = SourceLaunch(Path("/usr/bin/env"), environment={"PATH": "/usr/bin:/bin", "HOME": "/nowhere"})
    output, _ = await (await started(launch)).communicate()

    seen = dict(line.split("=", 1) for line in output.decode().splitlines())
    assert seen == {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", **launch.marker}


async def test_a_missing_cli_is_said_on_stderr() -> None:
    """The launcher's own failure is readable and names the program."""
    launch = SourceLaunch(Path("/no/such/cli"), environment={"PATH": "/usr/bin"})
    process = await started(launch)
    _, errors = await process.communicate()

    assert process.returncode == 1
    assert "/no/such/cli: No such file or directory" in errors.decode()


def sleepers(seconds: str) -> list[int]:
    """Return the processes that sleep so long."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and seconds.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


async def test_everything_a_cli_left_behind_is_ended() -> None:
    """Children that changed their session, lost their parent, ignore signals or are in the middle of an exec."""
    adopt_orphans()
    for attempt in range(3):
        seconds = f"600.{os.getpid()}{attempt:02}"
        daemon = f"setsid sh -c 'trap \"\" TERM HUP; exec sleep {seconds}'"
        script = f"trap '' TERM HUP INT; ({daemon} &) ; echo ready; exec sleep {seconds}"
        launch = SourceLaunch(Path("/bin/sh"), environment={"PATH": "/usr/bin:/bin"})
        process = await started(launch, "-c", script)
        assert process.stdout
        await process.stdout.readline()

        await launch.end()

        assert await process.wait() != 0
        assert list(marked(launch.agent_id)) == []
        assert sleepers(seconds) == []


async def test_a_cli_dies_with_its_service() -> None:
    """A service killed without warning leaves no CLI."""
    launch = SourceLaunch(Path("/bin/sleep"), environment={"PATH": "/usr/bin:/bin"})
    service = (
        "import os, subprocess, sys;"
        "environment = {**os.environ, 'ALIVE_LAUNCH_PARENT': str(os.getpid())};"
        f"subprocess.Popen([{str(LAUNCHER)!r}, '600'], env=environment);"
        "print('ready', flush=True); sys.stdin.read()"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", service, env={**os.environ, **launch.variables()},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    await process.stdout.readline()
    process.kill()
    await process.wait()

    async with asyncio.timeout(5):
        while set(marked(launch.agent_id)) - {process.pid}:
            await asyncio.sleep(0)


async def test_a_process_without_variables_is_left_alone() -> None:
    """It is looked at again and again, and then taken for somebody else's."""
    launch = Launch(Path("/bin/true"), environment={})
    stranger = await asyncio.create_subprocess_exec("sleep", "60", env={})
    try:
        async with asyncio.timeout(5):
            await launch.end()
        is_running = stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()

    assert is_running


async def test_a_box_whose_launcher_is_gone_has_ended(tmp_path: Path) -> None:
    """Nobody answers: there is nothing to take note of, and nothing to end."""
    launch = SourceLaunch(Path("/bin/true"), environment={}, box=Box(launcher=tmp_path / "gone", read_only=False))
    await launch.mark()
    await launch.end()

    assert not await launch.sweep()


async def test_a_launcher_that_does_not_answer_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there, and says nothing."""
    monkeypatch.setattr("alive_kit.launch._END_SECONDS", 0.1)
    box = Box(launcher=tmp_path / "launcher.sock", read_only=False)
    launch = SourceLaunch(Path("/bin/true"), environment={}, box=box)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(tmp_path / "launcher.sock"))
        silent.listen()
        async with asyncio.timeout(10):
            assert not await launch.sweep()
