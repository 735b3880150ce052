"""The workspace's files, and nothing else: every path is walked from the workspace's own descriptor.

Each step opens the next directory from the one before and follows no link, so that nothing that changes meanwhile can
lead outside: what was checked is what is opened.
"""

import contextlib
import errno
import os
import secrets
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from alive_mcp.errors import Refused

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # A pipe that nobody writes must not be waited for.

_PATH_CHARACTERS = 4096

PROTECTED = frozenset(
    {
        "index.ts",
        "index.js",
        "package.json",
        "package-lock.json",
        "bun.lock",
        "bun.lockb",
        "yarn.lock",
        "pnpm-lock.yaml",
        "tsconfig.json",
        "node_modules",
        ".git",
        ".well-known",
    }
)
"""What is not deleted: without it the website does not start."""

Parts = Sequence[str]


class Tree:
    """A workspace's directory. Paths are relative to it, or absolute and below it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def parts(self, path: str) -> list[str]:
        """Return the names on a path, none of them ``.`` or ``..``; empty for the workspace itself.

        Raises:
            Refused: it leads outside, or is no path.
        """
        if "\0" in path or len(path) > _PATH_CHARACTERS:
            raise Refused("This is no path: it is too long, or has a zero byte in it.")
        inside = path
        if path.startswith("/"):
            if path != str(self._root) and not path.startswith(f"{self._root}/"):
                raise Refused("Only files of the workspace can be reached. Give the path relative to it.")
            inside = path[len(str(self._root)) :]
        names = [name for name in inside.split("/") if name not in {"", "."}]
        if ".." in names:
            raise Refused("A path must not have '..' in it. Give the path relative to the workspace.")
        return names

    @contextlib.contextmanager
    def directory(self, parts: Parts, *, make: bool = False) -> Iterator[int]:
        """Open a directory, made with those above it when it may be, until the block ends.

        Raises:
            Refused: it is not there, or a link is on the way.
        """
        descriptor = os.open(self._root, _DIRECTORY)
        try:
            for index, name in enumerate(parts):
                with _explained("/".join(parts[: index + 1])):
                    if make:
                        with contextlib.suppress(FileExistsError):
                            os.mkdir(name, dir_fd=descriptor)
                    deeper = os.open(name, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = deeper
            yield descriptor
        finally:
            os.close(descriptor)

    def is_directory(self, path: str) -> bool:
        """Whether a directory is there that can be walked."""
        try:
            with self.directory(self.parts(path)):
                return True
        except Refused:
            return False

    def read(self, path: str, *, most: int) -> bytes:
        """Return what a file holds.

        Raises:
            Refused: it is not there, is no file, or holds more bytes than the most.
        """
        *above, name = self._file_parts(path)
        with self.directory(above) as directory, _explained(path):
            descriptor = os.open(name, os.O_RDONLY | _FILE, dir_fd=directory)
        return _content(descriptor, path, most)

    def write(self, path: str, content: bytes) -> bool:
        """Put a content in a file's place at once, and return whether the file is new. Directories are made.

        Raises:
            Refused: it is no file, or belongs to git.
        """
        *above, name = self._file_parts(path)
        if ".git" in map(plain_name, [*above, name]):
            raise Refused("What belongs to git is not written by hand. Use git itself.")
        with self.directory(above, make=True) as directory, _explained(path):
            mode = _mode_of(directory, name, path)
            fresh = f".{name[:100]}.{secrets.token_hex(8)}"
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, mode or 0o666, dir_fd=directory)
            try:
                with open(descriptor, "wb") as file:
                    file.write(content)
                    if mode is not None:
                        os.fchmod(descriptor, mode)
                os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(fresh, dir_fd=directory)
                raise
            return mode is None

    def entries(self, path: str) -> list[tuple[str, str]]:
        """Return the names in a directory, each with what it is: ``file``, ``directory``, ``link`` or ``other``.

        Raises:
            Refused: it is not there, or is none.
        """
        with self.directory(self.parts(path)) as directory, os.scandir(directory) as found:
            return sorted((entry.name, _kind(entry)) for entry in found)

    def walk(self, path: str, *, skipped: frozenset[str]) -> Iterator[tuple[str, int]]:
        """Yield every file below a directory, by its path in the workspace, with a descriptor of its directory.

        Raises:
            Refused: the directory is not there.
        """
        parts = self.parts(path)
        with self.directory(parts) as directory:
            yield from _below(directory, "/".join(parts), skipped)

    def _file_parts(self, path: str) -> list[str]:
        parts = self.parts(path)
        if not parts:
            raise Refused("This is the workspace itself, not a file in it.")
        return parts


def read_at(directory: int, path: str, *, most: int) -> bytes | None:
    """Return what a file that `Tree.walk` has yielded holds; None when it cannot be read or holds more."""
    try:
        descriptor = os.open(path.rpartition("/")[2], os.O_RDONLY | _FILE, dir_fd=directory)
        return _content(descriptor, path, most)
    except (OSError, Refused):
        return None


def plain_name(name: str) -> str:
    """Return a name as it is compared: lookalikes and other cases are the same."""
    return unicodedata.normalize("NFKC", name).casefold()


def protected(parts: Parts) -> str:
    """Return the name on a path that is not deleted; empty when all may be."""
    return next((name for name in parts if plain_name(name) in PROTECTED), "")


def _content(descriptor: int, path: str, most: int) -> bytes:
    """Return what an open file holds, and close it."""
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Refused(f"{path} is no file.")
        if found.st_size > most:
            raise Refused(f"{path} is too large: {found.st_size} bytes, at most {most} can be read.")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def _below(directory: int, prefix: str, skipped: frozenset[str]) -> Iterator[tuple[str, int]]:
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = f"{prefix}/{entry.name}" if prefix else entry.name
        if entry.is_file(follow_symlinks=False):
            yield path, directory
        elif entry.is_dir(follow_symlinks=False) and entry.name not in skipped:
            try:
                deeper = os.open(entry.name, _DIRECTORY, dir_fd=directory)
            except OSError:  # It is gone, has become a link, or may not be read.
                continue
            try:
                yield from _below(deeper, path, skipped)
            finally:
                os.close(deeper)


def _mode_of(directory: int, name: str, path: str) -> int | None:
    """Return the mode of the file that is replaced; None when there is none."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{path} is no file.")
    return stat.S_IMODE(found.st_mode) & 0o777


def _kind(entry: "os.DirEntry[str]") -> str:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


_MEANINGS = {
    errno.ENOENT: "is not there",
    errno.ENOTDIR: "is no directory, or a link: links are not followed",
    errno.ELOOP: "is a link: links are not followed",
    errno.EISDIR: "is a directory",
    errno.EACCES: "may not be used",
    errno.EPERM: "may not be used",
    errno.EROFS: "cannot be changed: this turn may only read",
    errno.ENOSPC: "cannot be written: no space is left",
    errno.EDQUOT: "cannot be written: no space is left",
    errno.ENAMETOOLONG: "has too long a name",
    errno.ENXIO: "is no file",
}


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refused(f"{path} {_MEANINGS.get(error.errno or 0, 'cannot be used')}.") from None
