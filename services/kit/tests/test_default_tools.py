"""Which of Alive's own tools a turn gets."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from alive.agent.v1 import options_pb2
from alive_kit.apis import Apis
from alive_kit.default_tools import DefaultTools, ToolSettings
from alive_kit.testing.harness import request
from alive_kit.workspaces import Workspace

ADA = options_pb2.ToolContext(user_id="ada", session_cookie="session=canary", connected_providers=["github", "linear"])
BACKGROUND = options_pb2.Limits(workload_class=options_pb2.WORKLOAD_CLASS_BACKGROUND)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Return a PATH on which the tools are."""
    for name in ("tools", "workspace", "email"):
        program = tmp_path / f"alive-mcp-{name}"
        program.touch(0o755)
    return tmp_path


def attached(
    path: Path, *, has_file_tools: bool = True, settings: dict[str, Any] | None = None, **fields: Any
) -> dict[str, options_pb2.McpServer]:
    """Return the MCP servers of a request once the tools are attached, by name."""
    asked = request("go", **{"tool_context": ADA, **fields})
    workspace = Workspace(workspace_id="demo", path=Path("/workspaces/demo"), home=Path("/homes/demo"))
    tools = DefaultTools(settings=ToolSettings(**(settings or {})), path=str(path))
    tools.attach(asked, workspace, has_file_tools=has_file_tools)
    return {server.name: server for server in asked.mcp_servers}


def permissions(*allowed: str) -> options_pb2.Permissions:
    """Return permissions that allow some tools."""
    return options_pb2.Permissions(tools=options_pb2.ToolRules(allowed=allowed))


def test_a_turn_of_a_user_gets_the_tools_as_planned(programs: Path) -> None:
    """Required, within ten seconds. Source: alive.md §1.2, fase_2/25."""
    servers = attached(programs, limits=BACKGROUND)
    planned = {
        name: (server.stdio.command, server.required, server.startup_timeout.seconds)
        for name, server in servers.items()
    }

    assert planned == {
        "alive-tools": ("alive-mcp-tools", True, 10),
        "alive-workspace": ("alive-mcp-workspace", True, 10),
        "alive-email": ("alive-mcp-email", False, 15),
    }


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, {"alive-tools", "alive-workspace"}),
        ({"limits": BACKGROUND}, {"alive-tools", "alive-workspace", "alive-email"}),
        ({"permissions": permissions("Bash")}, set()),
        ({"permissions": permissions("mcp__alive-tools__search_tools")}, {"alive-tools"}),
        ({"permissions": permissions("mcp__alive-email__send_reply")}, {"alive-email"}),
        ({"settings": {"tools": "alive-workspace, alive-email"}}, {"alive-workspace"}),
        ({"settings": {"tools": ""}}, set()),
        ({"mcp_servers": [options_pb2.McpServer(name="notes")]}, {"notes", "alive-tools", "alive-workspace"}),
    ],
)
def test_which_tools_a_turn_gets(programs: Path, fields: dict[str, Any], names: set[str]) -> None:
    """By what the request is for, what it allows, and what the operator offers."""
    assert attached(programs, **fields).keys() == names


def test_without_a_user_or_programs_there_are_none(programs: Path, tmp_path: Path) -> None:
    """Nothing that could not start is attached."""
    assert attached(tmp_path / "empty") == {}
    assert attached(programs, tool_context=None) == {}


def test_a_server_of_the_request_takes_the_place_of_one(programs: Path) -> None:
    """It stays as it is."""
    own = options_pb2.McpServer(name="alive-tools", stdio=options_pb2.StdioTransport(command="mine"))

    assert attached(programs, mcp_servers=[own])["alive-tools"] == own


def test_the_tools_are_told_where_and_how(programs: Path) -> None:
    """Which directory, whether the user can be asked, whether files are theirs, where assets are."""
    quiet = attached(programs)["alive-workspace"].stdio.env
    asking = attached(
        programs,
        has_file_tools=False,
        settings={"tools_assets": "/assets"},
        permissions=options_pb2.Permissions(approval_policy=options_pb2.APPROVAL_POLICY_ASK),
    )["alive-workspace"].stdio.env

    assert dict(quiet) == {"ALIVE_WORKSPACE_PATH": "/workspaces/demo", "ALIVE_QUESTIONS": "show"}
    assert dict(asking) == {
        "ALIVE_WORKSPACE_PATH": "/workspaces/demo",
        "ALIVE_QUESTIONS": "ask",
        "ALIVE_FILE_TOOLS": "1",
        "ALIVE_ASSETS": "/assets",
    }


def test_a_busy_machine_gives_them_longer_to_start(programs: Path) -> None:
    """By a setting of the operator's."""
    servers = attached(programs, settings={"tools_startup_seconds": 60}, limits=BACKGROUND)

    assert {server.startup_timeout.seconds for server in servers.values()} == {60}


def test_a_tool_that_asks_waits_as_long_as_an_approval(programs: Path) -> None:
    """Whatever that is in the request."""
    patient = options_pb2.Permissions(approval_timeout=Duration(seconds=3600))

    assert attached(programs)["alive-tools"].tool_timeout.seconds == 390
    assert attached(programs, permissions=patient)["alive-tools"].tool_timeout.seconds == 3690
    assert attached(programs, permissions=patient)["alive-workspace"].tool_timeout.seconds == 150


@pytest.mark.parametrize(
    "permissions",
    [
        options_pb2.Permissions(approval_policy=options_pb2.APPROVAL_POLICY_PLAN),
        options_pb2.Permissions(sandbox=options_pb2.SANDBOX_READ_ONLY),
    ],
)
def test_a_turn_that_may_only_read_has_only_tools_that_read(
    programs: Path, permissions: options_pb2.Permissions
) -> None:
    """Whatever its box holds back, the product would do."""
    servers = attached(programs, permissions=permissions)

    assert {server.stdio.env["ALIVE_READ_ONLY"] for server in servers.values()} == {"1"}


@pytest.mark.parametrize(
    ("stands", "exposed"),
    [
        ({}, True),
        ({"gateway_url": "http://127.0.0.1:1", "gateway_has_product": True}, False),
        ({"gateway_url": "http://127.0.0.1:1"}, False),
        ({"launcher": "/run/launcher.sock"}, False),
    ],
)
def test_secrets_are_given_to_tools_only_where_no_wall_stands(
    tmp_path: Path,
    stands: dict[str, Any],
    exposed: bool,
) -> None:
    """To Alive's own alone, and with a notice."""
    (tmp_path / "secret").write_text("canary-secret\n")
    apis = Apis(product_url="http://product", product_secret_file=tmp_path / "secret", **stands)
    asked = request("go", tool_context=ADA)
    own, other = (
        options_pb2.McpServer(name=name, stdio=options_pb2.StdioTransport(command=f"/opt/{name}"))
        for name in ("alive-mcp-tools", "other")
    )
    led, others = apis.lead(asked, [own, other], "token")

    assert ("canary" in str(dict(led.stdio.env))) is exposed
    assert [notice.code for notice in apis.notices(asked)] == (["secrets_exposed"] if exposed else [])
    assert "canary" not in str(dict(others.stdio.env))
    assert led.stdio.env["ALIVE_CONNECTED_PROVIDERS"] == "github,linear"
