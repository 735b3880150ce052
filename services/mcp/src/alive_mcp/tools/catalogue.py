"""What tools there are, for `search_tools`: our own, and those of the services that the user has connected."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import BaseModel, Field, JsonValue

from alive_mcp.context import Context
from alive_mcp.tool import Tool, offered, served

Category: TypeAlias = Literal[
    "meta", "composite", "batch", "documentation", "debugging", "development", "workspace", "external-mcp"
]
DetailLevel: TypeAlias = Literal["minimal", "standard", "full"]


class Entry(BaseModel):
    """A tool."""

    name: str = Field(description="What it is called by.")
    category: str
    description: str | None = None
    parameters: dict[str, JsonValue] | None = Field(default=None, description="The JSON Schema of its parameters.")


class Found(BaseModel):
    """The tools that fit."""

    tools: list[Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A service whose own MCP server is attached when the user has connected it."""

    provider: str
    does: str


EXTERNAL = (
    Connected(provider="stripe", does="Stripe: payments, customers, invoices, products."),
    Connected(provider="linear", does="Linear: issues, projects, comments."),
    Connected(provider="gmail", does="Gmail: search, read and draft mails."),
    Connected(provider="google_calendar", does="Google Calendar: calendars and events."),
    Connected(provider="google_search_console", does="Google Search Console: how the website is found."),
    Connected(provider="outlook", does="Outlook: mails and calendar."),
    Connected(provider="github", does="GitHub: repositories, issues, pull requests."),
)


def search(
    context: Context, servers: Iterable[tuple[str, Iterable[Tool]]], category: Category | None, detail: DetailLevel
) -> Found:
    """Return the tools of a category, or all; those of services that the user has not connected are left out."""
    own = (_entry(context, server, tool, detail) for server, tools in servers for tool in offered(tools, context))
    entries = [entry for entry in (*own, *_external(context, detail)) if category in {None, entry.category}]
    return Found(tools=entries)


def _entry(context: Context, server: str, tool: Tool, detail: DetailLevel) -> Entry:
    entry = Entry(name=f"mcp__{server}__{tool.name}", category=tool.category)
    if detail == "standard":
        entry.description = tool.description.partition("\n")[0]
    if detail == "full":
        entry.description = tool.description
        entry.parameters = served(tool, context).parameters
    return entry


def _external(context: Context, detail: DetailLevel) -> Iterator[Entry]:
    for service in EXTERNAL:
        if service.provider in context.connected:
            description = None if detail == "minimal" else service.does
            yield Entry(name=f"mcp__{service.provider}__*", category="external-mcp", description=description)
