"""For whom and where the tools act: read from the environment once at the start, never a parameter of a tool.

ALIVE_WORKSPACE_ID          the workspace, as the product knows it
ALIVE_WORKSPACE_PATH        its directory
ALIVE_USER_ID               the product's user; may be empty
ALIVE_CONNECTED_PROVIDERS   OAuth providers the user has connected, with commas; may be empty
ALIVE_API_URL               where the product's API is reached
ALIVE_API_TOKEN             what is shown there: the turn's token, in whose place the key gateway puts the session

Where there is no gateway, ALIVE_SESSION_COOKIE and ALIVE_INTERNAL_SECRET stand in the token's place.

Optional: ALIVE_READ_ONLY=1 offers only tools that change nothing, ALIVE_FILE_TOOLS=1 the file tools; with
ALIVE_QUESTIONS=show nobody is asked through the client; ALIVE_ASSETS is a directory of further assets;
ALIVE_REGISTRY_URL or HTTPS_PROXY says that packages can be installed.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alive_mcp.errors import Misconfigured

_REQUIRED = (
    "ALIVE_WORKSPACE_ID",
    "ALIVE_WORKSPACE_PATH",
    "ALIVE_USER_ID",
    "ALIVE_CONNECTED_PROVIDERS",
    "ALIVE_API_URL",
)
_MAY_BE_EMPTY = frozenset({"ALIVE_USER_ID", "ALIVE_CONNECTED_PROVIDERS"})
_KNOWN = "x-alive-"
"""Headers that say what everybody may know."""

_REGISTRY = ("ALIVE_REGISTRY_URL", "HTTPS_PROXY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything a tool knows beside its parameters."""

    workspace_id: str
    workspace: Path
    user_id: str = ""
    connected: frozenset[str] = frozenset()
    """OAuth providers the user has connected."""
    api_url: str
    headers: Mapping[str, str] = field(repr=False)
    """What the product's API is shown. Secret."""
    read_only: bool = False
    """Whether only tools that change nothing are offered."""
    file_tools: bool = False
    """Whether the file tools are offered."""
    may_ask: bool = True
    """Whether the user is asked through the client; else questions are shown by the product's front end."""
    assets: Path | None = None
    """Further assets beside those that come with the package."""
    registry: Mapping[str, str] = field(default_factory=dict)
    """The variables that lead to a package registry; empty where the network policy opens none."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be in no result and no log."""
        return tuple(value for name, value in self.headers.items() if value and not name.startswith(_KNOWN))


def read_context(environment: Mapping[str, str]) -> Context:
    """Return the context that an environment describes.

    Raises:
        Misconfigured: something is missing or wrong.
    """
    if missing := [name for name in _REQUIRED if not _is_there(environment, name)]:
        raise Misconfigured(f"{', '.join(missing)} must be set: for whom and where the tools act comes from there")
    workspace = Path(environment["ALIVE_WORKSPACE_PATH"])
    if not workspace.is_absolute() or not workspace.is_dir():
        raise Misconfigured("ALIVE_WORKSPACE_PATH must be the absolute path of a directory")
    if not environment["ALIVE_API_URL"].startswith(("http://", "https://")):
        raise Misconfigured("ALIVE_API_URL must be an http or https address")
    return Context(
        workspace_id=environment["ALIVE_WORKSPACE_ID"],
        workspace=workspace,
        user_id=environment["ALIVE_USER_ID"],
        connected=frozenset(filter(None, environment["ALIVE_CONNECTED_PROVIDERS"].split(","))),
        api_url=environment["ALIVE_API_URL"].rstrip("/"),
        headers=_headers(environment),
        read_only=environment.get("ALIVE_READ_ONLY") == "1",
        file_tools=environment.get("ALIVE_FILE_TOOLS") == "1",
        may_ask=environment.get("ALIVE_QUESTIONS") != "show",
        assets=Path(environment["ALIVE_ASSETS"]) if environment.get("ALIVE_ASSETS") else None,
        registry={name: environment[name] for name in _REGISTRY if environment.get(name)},
    )


def take_context() -> Context:
    """Return the context of this process, whose own variables hold no secret any more.

    Raises:
        Misconfigured: something is missing or wrong.
    """
    context = read_context(os.environ)
    for name in ("ALIVE_API_TOKEN", "ALIVE_SESSION_COOKIE", "ALIVE_INTERNAL_SECRET"):
        os.environ.pop(name, None)
    return context


def _is_there(environment: Mapping[str, str], name: str) -> bool:
    return name in environment if name in _MAY_BE_EMPTY else bool(environment.get(name))


def _headers(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return what the product is shown: the turn's token, or else the user's session and the product's secret."""
    if token := environment.get("ALIVE_API_TOKEN"):
        return {"x-turn-token": token}
    cookie, secret = environment.get("ALIVE_SESSION_COOKIE", ""), environment.get("ALIVE_INTERNAL_SECRET", "")
    if not cookie:
        raise Misconfigured("ALIVE_API_TOKEN must be set, or ALIVE_SESSION_COOKIE where there is no gateway")
    named = {"x-alive-user-id": "ALIVE_USER_ID", "x-alive-workspace-id": "ALIVE_WORKSPACE_ID"}
    return {
        "cookie": cookie,
        **({"x-internal-tools-secret": secret} if secret else {}),
        **{header: environment[name] for header, name in named.items()},
    }
