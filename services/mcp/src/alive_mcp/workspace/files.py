"""Reading and writing the workspace's files, for agents whose own tools for it are switched off."""

from typing import Annotated, TypeAlias

from pydantic import Field

from alive_mcp.context import Context
from alive_mcp.errors import Refused
from alive_mcp.limits import cut
from alive_mcp.workspace import search
from alive_mcp.workspace.paths import Tree

_FILE_BYTES = 2 << 20
_WRITTEN_CHARACTERS = 1 << 20
_FOUND = 200

FilePath: TypeAlias = Annotated[
    str, Field(description="The file, relative to the workspace.", min_length=1, max_length=4096)
]
Directory: TypeAlias = Annotated[
    str, Field(description="Where to look, relative to the workspace; unset means all of it.", max_length=4096)
]


def read(
    context: Context,
    file_path: FilePath,
    offset: Annotated[int, Field(description="The first line, from 1.", ge=1)] = 1,
    limit: Annotated[int, Field(description="How many lines.", ge=1, le=2000)] = 2000,
) -> str:
    """Read a text file of the workspace. Each line comes with its number, which is not part of the file.

    Files of up to 2 MiB can be read, 50,000 characters at once; read on with offset.
    """
    lines = _text(context, file_path).splitlines()
    if offset > max(len(lines), 1):
        raise Refused(f"{file_path} has {len(lines)} lines: there is no line {offset}.")
    numbered = [f"{number}\t{line}" for number, line in enumerate(lines[offset - 1 :][:limit], start=offset)]
    if not numbered:
        return f"{file_path} is empty."
    left = len(lines) - (offset - 1) - len(numbered)
    more = f"\n[{left} more lines: read on with offset {offset + len(numbered)}]" if left else ""
    return cut("\n".join(numbered), characters=50_000, lines=limit, hint="read on with offset") + more


def write(
    context: Context,
    file_path: FilePath,
    content: Annotated[str, Field(description="All of the file.", max_length=_WRITTEN_CHARACTERS)],
) -> str:
    """Write a text file of the workspace: a new one, or all of one that is there. Directories on the way are made.

    To change a part of a file use edit.
    """
    is_new = Tree(context.workspace).write(file_path, content.encode())
    return f"{'Made' if is_new else 'Replaced'} {file_path} ({len(content.splitlines())} lines)."


def edit(
    context: Context,
    file_path: FilePath,
    old_string: Annotated[
        str, Field(description="What is there, exactly, with its spaces and line ends.", min_length=1)
    ],
    new_string: Annotated[str, Field(description="What comes in its place.", max_length=_WRITTEN_CHARACTERS)],
    replace_all: Annotated[bool, Field(description="Wherever it is, instead of the one place where it is.")] = False,
) -> str:
    """Replace a text in a file of the workspace. Read the file first: the text must be there exactly once."""
    text = _text(context, file_path)
    count = text.count(old_string)
    if old_string == new_string:
        raise Refused("old_string and new_string are the same: nothing would change.")
    if not count:
        raise Refused(f"{file_path} has no such text. Read it again: every space counts.")
    if count > 1 and not replace_all:
        raise Refused(f"{file_path} has this text {count} times. Give more of what is around it, or set replace_all.")
    Tree(context.workspace).write(file_path, text.replace(old_string, new_string).encode())
    return f"Replaced {count} {'place' if count == 1 else 'places'} in {file_path}."


async def glob(
    context: Context,
    pattern: Annotated[
        str,
        Field(description="For example '**/*.ts' or 'src/*.css'; ** is any directories.", min_length=1, max_length=500),
    ],
    path: Directory = "",
) -> str:
    """Find files of the workspace by their path, at most 200 and 16,000 characters.

    node_modules and .git are left out.
    """
    found = await search.files(context.workspace, pattern, path, most=_FOUND + 1)
    if not found:
        return "No file fits."
    more = [f"[more than {_FOUND}: be more precise]"] if len(found) > _FOUND else []
    return cut("\n".join([*found[:_FOUND], *more]), characters=16_000, lines=_FOUND + 1)


async def grep(
    context: Context,
    pattern: Annotated[str, Field(description="A regular expression, for one line.", min_length=1, max_length=500)],
    path: Directory = "",
    include: Annotated[
        str | None, Field(description="Only files whose path fits, for example '*.ts'.", max_length=500)
    ] = None,
    max_results: Annotated[int, Field(description="How many lines at most.", ge=1, le=200)] = 50,
) -> str:
    """Find lines in the files of the workspace, as path:line:text, at most 16,000 characters.

    node_modules, .git, binary files and files of more than 2 MiB are left out.
    """
    found = await search.lines(context.workspace, pattern, path, include, most=max_results)
    return cut("\n".join(found), characters=16_000, lines=max_results) if found else "No line fits."


def list_directory(context: Context, path: Directory = "") -> str:
    """List a directory of the workspace, up to 500 names; directories end with a slash, links with an @."""
    marks = {"directory": "/", "link": "@"}
    entries = [f"{name}{marks.get(kind, '')}" for name, kind in Tree(context.workspace).entries(path)]
    return cut("\n".join(entries), lines=500) if entries else "The directory is empty."


def _text(context: Context, path: str) -> str:
    content = Tree(context.workspace).read(path, most=_FILE_BYTES)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Refused(f"{path} is no text: it holds {len(content)} bytes of something else.") from None
