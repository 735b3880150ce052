"""Nothing outside of the workspace, whatever a path says and whatever changes meanwhile."""

import ctypes
import os
import threading
from pathlib import Path

import pytest

from alive_mcp.errors import Refused
from alive_mcp.workspace.assets import copy_shared_asset
from alive_mcp.workspace.files import edit, glob, grep, list_directory, read, write

from .conftest import World

OUTSIDE = "canary from outside"


@pytest.fixture
def outside(world: World, tmp_path: Path) -> Path:
    """Return a directory outside, to which links in the workspace lead."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret.txt").write_text(OUTSIDE)
    (world.workspace / "link").symlink_to(directory)
    (world.workspace / "linked.txt").symlink_to(directory / "secret.txt")
    (world.workspace / "dangling").symlink_to(directory / "new.txt")
    return directory


@pytest.mark.parametrize(
    "path",
    ["../outside/secret.txt", "a/../../outside/secret.txt", "/etc/passwd", "link/secret.txt", "linked.txt",
     "./link/secret.txt", "link/../link/secret.txt", "//etc/passwd", "/proc/self/environ", "a\0b",
     "x" * 5000, "", ".", "/"],
)  # fmt: skip
def test_no_path_leads_outside(world: World, outside: Path, path: str) -> None:
    """Not to read, not to write, not to change."""
    for attempt in (read, lambda *a: write(*a, "changed"), lambda *a: edit(*a, "canary", "changed")):
        with pytest.raises(Refused):
            attempt(world.context(), path)
    assert (outside / "secret.txt").read_text() == OUTSIDE


async def test_searching_does_not_leave(world: World, outside: Path) -> None:
    """Links are listed, and not followed."""
    context = world.context()

    assert "canary" not in await grep(context, "canary")
    assert await glob(context, "**/*.txt") == "No file fits."
    assert list_directory(context) == "dangling@\nlink@\nlinked.txt@"
    for path in ("link", "..", "/etc"):
        for search in (lambda p: grep(context, "x", p), lambda p: glob(context, "*", p)):
            with pytest.raises(Refused):
                await search(path)
        with pytest.raises(Refused):
            list_directory(context, path)


def test_writing_does_not_leave(world: World, outside: Path) -> None:
    """Neither through a link to what is not there yet, nor through a link on the way of an asset."""
    for attempt in (
        lambda: write(world.context(), "dangling", "x"),
        lambda: write(world.context(), "link/new.txt", "x"),
        lambda: copy_shared_asset(world.context(), "images/placeholder", "link"),
    ):
        with pytest.raises(Refused):
            attempt()
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]


def test_git_is_not_written(world: World) -> None:
    """A hook would run with the next command."""
    for path in (".git/hooks/pre-commit", "sub/.GIT/config"):
        with pytest.raises(Refused, match="git"):
            write(world.context(), path, "x")


def test_what_is_no_file_is_not_read(world: World) -> None:
    """A pipe is not waited for."""
    os.mkfifo(world.workspace / "pipe")
    (world.workspace / "directory").mkdir()
    world.file("binary").write_bytes(b"\xff\xfe\0")
    world.file("large").write_bytes(b"x" * (3 << 20))
    for path, why in (("pipe", "no file"), ("directory", "no file"), ("binary", "no text"), ("large", "too large")):
        with pytest.raises(Refused, match=why):
            read(world.context(), path)


@pytest.mark.parametrize(
    "attempt", [read, lambda context, path: write(context, path, "changed")], ids=["read", "write"]
)
def test_a_path_that_changes_meanwhile_does_not_lead_outside(world: World, outside: Path, attempt: object) -> None:
    """A directory becomes a link and a directory again, all the time."""
    place, link = world.file("place/secret.txt", "inside").parent, world.workspace / "other"
    link.symlink_to(outside)
    stop = threading.Event()
    libc, here, exchange = ctypes.CDLL(None), -100, 2

    def swap() -> None:
        while not stop.is_set():
            libc.renameat2(here, os.fsencode(place), here, os.fsencode(link), exchange)

    swapping = threading.Thread(target=swap)
    swapping.start()
    said = set()
    for _ in range(2000):
        try:
            said.add(attempt(world.context(), "place/secret.txt"))
        except Refused:
            said.add("refused")
    stop.set()
    swapping.join()

    assert not [text for text in said if "canary" in text]
    assert (outside / "secret.txt").read_text() == OUTSIDE
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]
    assert len(said) > 1, "nothing changed while it was read"
