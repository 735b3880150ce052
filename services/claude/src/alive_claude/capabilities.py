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
    limited("permissions.tools", "a tool of an MCP server that is not allowed is offered to the model, then refused"),
    unsupported("permissions.extra_directories", "an agent has its own workspace only"),
    supported("permissions.web_search"),
    limited("agent.model", "others than those listed here are passed on: the vendor decides"),
    limited("agent.effort", "refused for models that are not listed here"),
    supported("agent.system_prompt.append"),
    supported("agent.system_prompt.replace"),
    supported("agent.output_schema"),
    supported("input.image"),
    supported("limits.max_turns"),
    limited("limits.max_tokens", "checked after each request to the model"),
    limited("limits.max_micro_usd", "checked after each request; tokens only; refused for models without a price"),
    limited("usage", "of a request that was interrupted, what the vendor had said; searches of the web cost extra"),
    supported("mcp_servers.stdio"),
    limited("tools.files", "Alive's tools for files are offered where permissions.tools leaves none of the CLI's own"),
    limited("model_retry", "silent up to 6 times after a 400, once after a broken stream; retry-after is not told"),
    supported("history"),
    supported("ephemeral"),
    supported("SteerTurn"),
    supported("ResolveApproval"),
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
