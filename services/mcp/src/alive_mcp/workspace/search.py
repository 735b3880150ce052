"""Searches a workspace in a process of its own: an expression that never ends holds up nothing but itself.

Run as ``python -m alive_mcp.workspace.search``, with what is searched for as JSON on its standard input.
"""

import fnmatch
import json
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from alive_mcp import programs
from alive_mcp.errors import Refused
from alive_mcp.workspace.paths import Tree, read_at

_SECONDS = 10.0
_FILE_BYTES = 2 << 20
_LINE_CHARACTERS = 500
_SKIPPED = frozenset({".git", "node_modules"})


async def files(workspace: Path, pattern: str, path: str, *, most: int) -> list[str]:
    """Return the files below a directory whose path fits a pattern.

    Raises:
        Refused: the directory is not there, or it takes too long.
    """
    return await _search(workspace, {"glob": pattern, "path": path, "most": most})


async def lines(workspace: Path, pattern: str, path: str, include: str | None, *, most: int) -> list[str]:
    """Return the lines of files that a regular expression finds, as path:line:text.

    Raises:
        Refused: it is no regular expression, the directory is not there, or it takes too long.
    """
    return await _search(workspace, {"grep": pattern, "path": path, "include": include, "most": most})


async def _search(workspace: Path, wanted: Mapping[str, object]) -> list[str]:
    words = [sys.executable, "-P", "-m", "alive_mcp.workspace.search", str(workspace)]
    try:
        done = await programs.run(words, workspace, seconds=_SECONDS, said=json.dumps(wanted).encode())
    except Refused:
        raise Refused("The search took too long. Look in a directory (path), or for something simpler.") from None
    if done.code:
        raise Refused(done.output.strip().rpartition("\n")[2])
    return done.output.splitlines()


def main() -> None:
    """Search, and print what is found; exit with 1 and a sentence when it cannot be."""
    tree, wanted = Tree(Path(sys.argv[1])), json.load(sys.stdin)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # Names are bytes, and need not be Unicode.
    try:
        found = _files(tree, wanted["glob"], wanted["path"]) if "glob" in wanted else _lines(tree, wanted)
        for line in islice(found, wanted["most"]):
            print(line.replace("\n", "\\n").replace("\r", "\\r"))  # noqa: T201  # To whoever asked.
    except Refused as refused:
        print(refused)  # noqa: T201
        sys.exit(1)


def _files(tree: Tree, pattern: str, path: str) -> Iterator[str]:
    fits = _pattern(pattern)
    prefix = "".join(f"{part}/" for part in tree.parts(path))
    return (name for name, _ in tree.walk(path, skipped=_SKIPPED) if fits.fullmatch(name.removeprefix(prefix)))


def _lines(tree: Tree, wanted: Mapping[str, str]) -> Iterator[str]:
    try:
        expression = re.compile(wanted["grep"])
    except (re.error, OverflowError, RecursionError) as error:
        raise Refused(f"pattern is no regular expression: {error}.") from None
    for name, directory in tree.walk(wanted["path"], skipped=_SKIPPED):
        content = read_at(directory, name, most=_FILE_BYTES) if _is_included(name, wanted["include"]) else None
        if content is None or b"\0" in content:
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
            if expression.search(line):
                yield f"{name}:{number}:{line[:_LINE_CHARACTERS]}"


def _is_included(name: str, include: str | None) -> bool:
    names = (name, name.rpartition("/")[2])
    return include is None or any(fnmatch.fnmatchcase(one, include) for one in names)


def _pattern(pattern: str) -> re.Pattern[str]:
    """Return a glob as a regular expression: ``**`` is any directories, ``*`` and ``?`` stay inside one."""
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    split = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.removeprefix("./"))
    return re.compile("".join(pieces.get(piece, re.escape(piece)) for piece in split))


if __name__ == "__main__":
    main()
