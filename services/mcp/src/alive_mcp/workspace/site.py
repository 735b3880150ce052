"""The website that runs from the workspace: what needs the product's rights is done by the product."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue

from alive_mcp import product
from alive_mcp.client import Client
from alive_mcp.context import Context
from alive_mcp.errors import Refused
from alive_mcp.workspace.paths import Tree, protected

SLOW_SECONDS = 120.0
_DELETED_AT_ONCE = 10_000


class Done(BaseModel):
    """What the product answers."""

    message: str


class Website(BaseModel):
    """A website that was made."""

    hostname: str = Field(description="Its address.")
    message: str = Field(description="What was done.")


async def restart_dev_server(context: Context) -> str:
    """Restart the server of your website, its caches cleared. Not more often than every ten seconds.

    Use it after changing its configuration or installing packages; code that changes is loaded without it.
    """
    return product.understood(Done, await product.call(context, "POST", "/api/restart-workspace", {})).message


async def switch_serve_mode(
    context: Context,
    client: Client,
    mode: Annotated[
        Literal["dev", "build"],
        Field(description="dev: serves the code as it is; build: serves what was built from it."),
    ],
    build_first: Annotated[bool, Field(description="Build before serving what was built.")] = True,
) -> str:
    """Switch between serving the code while you work on it, and what was built from it. Takes up to two minutes."""
    body: dict[str, JsonValue] = {"mode": mode, "buildFirst": build_first}
    async with client.working("Switching" if mode == "dev" or not build_first else "Building"):
        answer = await product.call(
            context, "POST", "/api/internal-tools/switch-serve-mode", body, seconds=SLOW_SECONDS
        )
    return product.understood(Done, answer).message


async def delete_file(
    context: Context,
    path: Annotated[str, Field(description="The file or directory, relative to the workspace.", min_length=1)],
    recursive: Annotated[bool, Field(description="A directory with all that is in it.")] = False,
) -> str:
    """Delete a file of the workspace, or a directory. It cannot be undone.

    What the website needs to start is protected: index.ts, index.js, package.json, lock files, tsconfig.json,
    node_modules, .git and .well-known.
    """
    parts = Tree(context.workspace).parts(path)
    if not parts:
        raise Refused("The workspace itself cannot be deleted.")
    if name := protected(parts) or _protected_below(context, path, recursive=recursive):
        raise Refused(f"{name} is protected: without it the website does not start. Nothing was deleted.")
    body: dict[str, JsonValue] = {"path": "/".join(parts), "recursive": recursive}
    return product.understood(Done, await product.call(context, "POST", "/api/files/delete", body)).message


async def create_website(
    context: Context,
    client: Client,
    slug: Annotated[
        str,
        Field(
            description="The name in its address: 3 to 16 small letters, digits and hyphens.",
            pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])$",
            min_length=3,
            max_length=16,
        ),
    ],
    siteIdeas: Annotated[  # noqa: N803  # The name that front ends know.
        str | None, Field(description="What it should be like, in the user's words.", max_length=5000)
    ] = None,
    templateId: Annotated[  # noqa: N803
        str | None,
        Field(description="The template to begin with.", pattern=r"^tmpl_[A-Za-z0-9_-]+$", max_length=100),
    ] = None,
) -> Website:
    """Make a new website for the user and put it online. Takes up to two minutes.

    Ask for the name with ask_website_config first, unless the user has given one.
    """
    asked = {"slug": slug, "siteIdeas": siteIdeas, "templateId": templateId}
    body: dict[str, JsonValue] = {name: value for name, value in asked.items() if value is not None}
    async with client.working(f"Making {slug}"):
        answer = await product.call(context, "POST", "/api/deploy-subdomain", body, seconds=SLOW_SECONDS)
    return product.understood(Website, answer)


def _protected_below(context: Context, path: str, *, recursive: bool) -> str:
    """Return the first protected name inside a directory that is deleted whole; empty when there is none."""
    tree = Tree(context.workspace)
    if not recursive or not tree.is_directory(path):
        return ""
    for count, (name, _) in enumerate(tree.walk(path, skipped=frozenset())):
        if found := protected(name.split("/")):
            return f"{found} (in {name})" if name != found else found
        if count > _DELETED_AT_ONCE:
            raise Refused(f"{path} holds more than {_DELETED_AT_ONCE} files. Delete parts of it.")
    return ""
