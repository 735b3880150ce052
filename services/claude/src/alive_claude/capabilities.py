"""What Claude Code can do behind the contract, and what not yet."""

from alive.agent.v1 import provider_pb2
from alive_kit.capabilities import limited, supported, unsupported
from alive_kit.walls import Walls

_OUTSIDE = (
    unsupported("permissions.sandbox.READ_ONLY", "there is no box; PLAN changes nothing"),
    unsupported("permissions.sandbox.WORKSPACE_WRITE", "there is no box"),
    supported("permissions.sandbox.FULL_ACCESS"),
    limited("permissions.network", "only on: there is no box"),
)

_COMMON: tuple[provider_pb2.Capability, ...] = (
    supported("permissions.approval_policy.BYPASS"),
    supported("permissions.approval_policy.PLAN"),
    supported("permissions.approval_policy.ASK"),
    supported("permissions.approval_policy.ACCEPT_EDITS"),
    limited("permissions.tools", "tools of MCP servers that are not allowed are offered to the model and then refused"),
    unsupported("permissions.extra_directories", "an agent has its own workspace only"),
    supported("permissions.web_search"),
    limited("agent.effort", "checked for the models listed here; for others the vendor decides"),
    supported("agent.system_prompt.append"),
    supported("agent.system_prompt.replace"),
    supported("agent.output_schema"),
    supported("input.image"),
    supported("limits.max_turns"),
    limited("limits.max_tokens", "checked after each request to the model"),
    unsupported("limits.max_micro_usd", "turns are not priced yet"),
    supported("mcp_servers.stdio"),
    limited("model_retry", "the CLI asks again silently: up to 6 times after a 400, once after a broken stream"),
    supported("history"),
    supported("ephemeral"),
    unsupported("SteerTurn", "the CLI answers further input with a turn of its own"),
    limited("ResolveApproval", "input that an MCP server asks the user for is declined"),
    supported("ReadItemContent"),
    supported("ListSessions"),
    supported("GetSession"),
    supported("ForkSession"),
    supported("DeleteSession"),
    supported("ListItems"),
)


def capabilities(walls: Walls) -> list[provider_pb2.Capability]:
    """Return what it can do within some walls, or outside."""
    return [*walls.capabilities(), *(_OUTSIDE if not walls.stand else ()), *_COMMON]
