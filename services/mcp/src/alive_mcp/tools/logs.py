"""What the website's server has logged, and what that points to."""

import re
from collections.abc import Iterator
from typing import Annotated, TypeAlias

from pydantic import BaseModel, Field

from alive_mcp import product
from alive_mcp.context import Context
from alive_mcp.errors import Refused
from alive_mcp.limits import cut

_SECONDS = 15.0

WorkspaceName: TypeAlias = Annotated[
    str,
    Field(
        description="The domain of the website you work on, for example 'site.example'.",
        pattern=r"^[a-z0-9.-]+$",
        max_length=253,
    ),
]
Since: TypeAlias = Annotated[
    str | None,
    Field(
        description="How far back, for example '10 minutes ago' or '2026-03-01 12:00'.",
        pattern=r"^[A-Za-z0-9 :.+-]+$",
        max_length=64,
    ),
]


class Logs(BaseModel):
    """What the product answers."""

    lines: list[str]


class Finding(BaseModel):
    """Something that the logs point to."""

    problem: str
    suggestion: str
    examples: list[str] = Field(description="Lines that say so, at most three.")


class Diagnosis(BaseModel):
    """What the logs say, and what to do about it."""

    lines_read: int
    findings: list[Finding]
    logs: str = Field(description="The latest lines.")


_SIGNS = (
    ("A module cannot be found", r"cannot find (module|package)|module not found|failed to resolve import",
     "Install it with install_package, or correct the import's path."),
    ("TypeScript or the bundler does not accept the code", r"error TS\d+|syntaxerror|transform failed|build failed",
     "Run check_codebase, and correct the first error before the others."),
    ("The port is taken", r"eaddrinuse|address already in use", "Restart once with restart_dev_server."),
    ("A file or a permission is missing", r"enoent|eacces|permission denied", "Check the path in the message."),
    ("Another server cannot be reached", r"econnrefused|etimedout|fetch failed", "Check the address and its settings."),
    ("The memory is exhausted", r"out of memory|heap limit|oom", "Load less at once; a restart ends what leaks."),
    ("The code has thrown an error", r"unhandled|uncaught|typeerror|referenceerror|\berror\b",
     "Read the stack trace: its first line in the website's own code is where to look."),
)  # fmt: skip


async def read_server_logs(
    context: Context,
    workspace: WorkspaceName,
    search: Annotated[str | None, Field(description="Only lines that contain this text.", max_length=200)] = None,
    search_regex: Annotated[
        str | None, Field(description="Only lines that this regular expression finds.", max_length=200)
    ] = None,
    lines: Annotated[int, Field(description="How many of the latest lines.", ge=1, le=1000)] = 100,
    since: Since = None,
) -> str:
    """Read what the server of your website has logged, the latest lines last.

    Use it when a page does not load or behaves differently from what the code says. debug_workspace reads the same
    lines and says what they point to.
    """
    found = await _read(context, workspace, lines, since=since, search=search, search_regex=search_regex)
    if not found:
        return "Nothing was logged that fits."
    return cut("\n".join(found[-lines:]), lines=lines, hint="ask for fewer lines, or search")


async def debug_workspace(
    context: Context,
    workspace: WorkspaceName,
    lines: Annotated[int, Field(description="How many of the latest lines to look at.", ge=1, le=1000)] = 200,
    since: Since = None,
) -> Diagnosis:
    """Look for errors in what the server of your website has logged, and say what they point to and what to do."""
    found = await _read(context, workspace, lines, since=since)
    latest = cut("\n".join(found[-50:]))
    return Diagnosis(lines_read=len(found), findings=list(_findings(found)), logs=latest)


async def _read(
    context: Context,
    workspace: str,
    lines: int,
    *,
    since: str | None,
    search: str | None = None,
    search_regex: str | None = None,
) -> list[str]:
    if workspace != context.workspace_id:
        raise Refused(f"You work on {context.workspace_id!r}: only its logs can be read.")
    if search_regex is not None:
        _check_regex(search_regex)
    asked = {"lines": lines, "since": since, "search": search, "searchRegex": search_regex}
    given = {name: value for name, value in asked.items() if value is not None}
    answer = await product.call(context, "POST", "/api/internal-tools/read-logs", given, seconds=_SECONDS)
    return product.understood(Logs, answer).lines


def _check_regex(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise Refused(f"search_regex is no regular expression: {error}.") from None


def _findings(lines: list[str]) -> Iterator[Finding]:
    """Yield what lines point to; a line counts for the first sign that it shows."""
    left = lines
    for problem, pattern, suggestion in _SIGNS:
        shown = [line for line in left if re.search(pattern, line, re.IGNORECASE)]
        left = [line for line in left if line not in shown]
        if shown:
            yield Finding(problem=problem, suggestion=suggestion, examples=[line[:300] for line in shown[-3:]])
