"""The server alive-tools."""

from typing import Annotated

from pydantic import Field

from alive_mcp.context import Context
from alive_mcp.email import server as email
from alive_mcp.serving import context_or_exit, server
from alive_mcp.tool import Tool, reads
from alive_mcp.tools.catalogue import Category, DetailLevel, Found, search
from alive_mcp.tools.documents import get_alive_super_template, get_workflow, list_workflows
from alive_mcp.tools.logs import debug_workspace, read_server_logs
from alive_mcp.tools.persona import SECONDS as PERSONA_SECONDS
from alive_mcp.tools.persona import generate_persona
from alive_mcp.tools.questions import ask_automation_config, ask_clarification, ask_website_config
from alive_mcp.workspace import server as workspace

NAME = "alive-tools"

_INSTRUCTIONS = (
    "Tools of the product that the user's website is made with. search_tools says what else there is; "
    "ask_clarification asks the user; read_server_logs and debug_workspace show why a page does not work."
)


def search_tools(
    context: Context,
    category: Annotated[Category | None, Field(description="Only tools of this category; unset means all.")] = None,
    detail_level: Annotated[
        DetailLevel, Field(description="minimal: names; standard: with a sentence each; full: with parameters.")
    ] = "standard",
) -> Found:
    """Say what tools there are, by category. Tools of services that the user has not connected are left out.

    Call it when you look for a way to do something and none of the tools you know fits.
    """
    servers = ((NAME, TOOLS), (workspace.NAME, workspace.tools(context)), (email.NAME, email.TOOLS))
    return search(context, servers, category, detail_level)


TOOLS = (
    Tool(body=search_tools, annotations=reads("Search tools"), category="meta"),
    Tool(body=list_workflows, annotations=reads("List workflows"), category="documentation"),
    Tool(body=get_workflow, annotations=reads("Read a workflow"), category="documentation"),
    Tool(body=debug_workspace, annotations=reads("Diagnose the website"), category="composite"),
    Tool(body=get_alive_super_template, annotations=reads("Read a super template"), category="documentation"),
    Tool(body=read_server_logs, annotations=reads("Read the server's logs"), category="debugging"),
    Tool(
        body=generate_persona,
        annotations=reads("Describe a persona", open_world=True),
        category="development",
        seconds=PERSONA_SECONDS + 5,
    ),
    *(
        Tool(body=body, annotations=reads(title, open_world=True), category="meta", seconds=None)
        for body, title in (
            (ask_clarification, "Ask the user"),
            (ask_website_config, "Ask about a website"),
            (ask_automation_config, "Ask about an automation"),
        )
    ),
)


def main() -> None:
    """Serve over standard input and output."""
    server(NAME, _INSTRUCTIONS, TOOLS, context_or_exit(NAME)).run("stdio")
