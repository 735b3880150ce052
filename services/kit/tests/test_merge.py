"""What a request says wins over what its workspace says."""

from google.protobuf.duration_pb2 import Duration

from alive.agent.v1 import agent_service_pb2, options_pb2, resolved_pb2, workspace_service_pb2
from alive_kit.merge import merge

Settings = workspace_service_pb2.WorkspaceSettings


def merged(settings: workspace_service_pb2.WorkspaceSettings, **fields: object) -> agent_service_pb2.StartTurnRequest:
    """Return a request with these fields merged with these settings."""
    request = agent_service_pb2.StartTurnRequest(workspace_id="demo", **fields)  # type: ignore[arg-type]
    return merge(request, resolved_pb2.ResolvedTurn(settings=settings))


def test_unset_fields_come_from_the_workspace() -> None:
    """Fields are merged one by one, not message by message."""
    settings = Settings(
        agent=options_pb2.AgentOptions(model="m", effort="low"),
        permissions=options_pb2.Permissions(network=True),
        limits=options_pb2.Limits(deadline=Duration(seconds=5)),
    )
    request = merged(settings, agent=options_pb2.AgentOptions(effort="high"))

    assert request.agent == options_pb2.AgentOptions(model="m", effort="high")
    assert request.permissions.network
    assert request.limits.deadline.seconds == 5


def test_an_explicit_no_wins_over_a_yes() -> None:
    """A field with presence can be switched off by the request."""
    settings = Settings(permissions=options_pb2.Permissions(network=True))
    request = merged(settings, permissions=options_pb2.Permissions(network=False))

    assert request.permissions.HasField("network")
    assert not request.permissions.network


def test_a_choice_is_taken_whole() -> None:
    """A system prompt to append is not mixed with one to replace."""
    settings = Settings(agent=options_pb2.AgentOptions(system_prompt=options_pb2.SystemPrompt(replace="R")))
    appended = options_pb2.SystemPrompt(append="A")
    request = merged(settings, agent=options_pb2.AgentOptions(system_prompt=appended))

    assert request.agent.system_prompt == appended


def test_lists_are_replaced_and_servers_joined_by_name() -> None:
    """The request's MCP server of the same name takes the place of the workspace's."""
    old, new, other = (
        options_pb2.McpServer(name=name, http=options_pb2.HttpTransport(url=url))
        for name, url in [("x", "http://old"), ("x", "http://new"), ("y", "http://y")]
    )
    settings = Settings(permissions=options_pb2.Permissions(extra_directories=["a"]), mcp_servers=[old, other])
    request = merged(settings, permissions=options_pb2.Permissions(extra_directories=["b"]), mcp_servers=[new])

    assert list(request.permissions.extra_directories) == ["b"]
    assert list(request.mcp_servers) == [new, other]


def test_the_routers_turn_id_is_used_when_the_request_has_none() -> None:
    """The first service that sees a request without an id chooses it."""
    resolved = resolved_pb2.ResolvedTurn(turn_id="chosen")
    nameless = merge(agent_service_pb2.StartTurnRequest(), resolved)
    named = merge(agent_service_pb2.StartTurnRequest(turn_id="mine"), resolved)

    assert (nameless.turn_id, named.turn_id) == ("chosen", "mine")
