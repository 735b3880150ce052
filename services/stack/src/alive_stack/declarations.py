"""What services there are: found by folder, as each declares itself in its ``pyproject.toml``.

[tool.alive.service]
module = "alive_codex"                    run as ``python -m alive_codex``
uid = 43003                               its UID and GID on one host
settings = ["ALIVE_OPENAI_BASE_URL"]      variables it is given when they are set
secrets = ["ALIVE_OPENAI_API_KEY_FILE"]   files it is given copies of

[tool.alive.service.gateway]              how the key gateway reaches the vendor: the fields of `GatewayRoute`

[tool.alive.service.box]                  the box around its agents: the fields of `BoxDeclaration`

[tool.alive.service.scripted_model]
ALIVE_OPENAI_BASE_URL = "/v1"             how it is pointed at the scripted model: appended to its URL
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROUTER_UID = 43001
GATEWAY_UID = 43005
EDGE_UID = 43006
MODEL_UID = 43009
WORKSPACES_GID = 43100
"""Group that may use the workspaces, beside the agents of each: the services, and the product itself."""
AGENT_UIDS = range(45000, 46000)
"""One for each workspace: that of its owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRoute:
    """How the key gateway passes a provider's requests on."""

    base_url: str
    """The setting that names the vendor's API."""
    default_url: str
    """The vendor's API where the setting is not set."""
    key_file: str
    """The setting that names the key's file."""
    paths: str
    """Regular expression for the paths that are passed on."""
    header: str
    """Header of the token, and of the key."""
    prefix: str
    """What stands before the key in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxDeclaration:
    """How the launcher starts a provider's agents."""

    program: str
    """The vendor's CLI, below the site-packages of the service's environment."""
    program_setting: str
    """The setting that names another program."""
    keep: tuple[str, ...]
    """What of an agent's home outlives its box."""
    nested: bool = False
    """Whether the CLI builds boxes of its own inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A provider's service."""

    name: str
    module: str
    uid: int
    settings: tuple[str, ...]
    secrets: tuple[str, ...]
    scripted_model: Mapping[str, str]
    gateway: GatewayRoute | None
    box: BoxDeclaration | None


def declared(checkout: Path) -> list[Declaration]:
    """Return the providers' services of a checkout, by the name of their folder."""
    tables = {path.parent.name: _table(path) for path in sorted(checkout.glob("services/*/pyproject.toml"))}
    return [declaration(name, table) for name, table in tables.items() if table]


def declaration(name: str, table: Mapping[str, object]) -> Declaration:
    """Return what a service's table says.

    Raises:
        SystemExit: something is missing.
    """
    try:
        return Declaration(
            name=name,
            module=str(table["module"]),
            uid=int(str(table["uid"])),
            settings=_names(table.get("settings")),
            secrets=_names(table.get("secrets")),
            scripted_model=_texts(table.get("scripted_model")),
            gateway=GatewayRoute(**_texts(table["gateway"])) if "gateway" in table else None,
            box=_box(table["box"]) if "box" in table else None,
        )
    except (KeyError, TypeError) as missing:
        raise SystemExit(f"services/{name}/pyproject.toml: [tool.alive.service]: {missing}") from None


def _table(path: Path) -> Mapping[str, object]:
    tool = tomllib.loads(path.read_text()).get("tool", {})
    table: Mapping[str, object] = tool.get("alive", {}).get("service", {})
    return table


def _box(table: object) -> BoxDeclaration:
    fields = dict(table) if isinstance(table, dict) else {}
    return BoxDeclaration(**{**fields, "keep": _names(fields.get("keep"))})


def _names(value: object) -> tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


def _texts(value: object) -> Mapping[str, str]:
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, dict) else {}
