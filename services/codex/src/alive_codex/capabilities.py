"""What the Codex CLI can do behind the contract, and what not yet."""

from alive.agent.v1 import provider_pb2
from alive_kit.capabilities import limited, supported, unsupported
from alive_kit.walls import Walls

_FORKED = "what forks refer to is deleted with the last of them"

_OUTSIDE = (
    limited("DeleteSession", "while other turns of the workspace run, text may stay in Codex's databases"),
    limited("permissions.sandbox.READ_ONLY", "by Codex's own sandbox: it can read the whole disk; not with ASK"),
    limited("permissions.sandbox.WORKSPACE_WRITE", "by Codex's own sandbox: it can read the whole disk; not with ASK"),
    supported("permissions.sandbox.FULL_ACCESS"),
    limited("permissions.network", "on or off in WORKSPACE_WRITE, always off in READ_ONLY, always on in FULL_ACCESS"),
)

_INSIDE = (limited("DeleteSession", _FORKED),)

_COMMON: tuple[provider_pb2.Capability, ...] = (
    supported("permissions.approval_policy.BYPASS"),
    supported("permissions.approval_policy.PLAN"),
    supported("permissions.approval_policy.ASK"),
    supported("permissions.approval_policy.ACCEPT_EDITS"),
    limited("permissions.tools", "tools that run commands and change files can only be named together"),
    unsupported("permissions.extra_directories", "an agent has its own workspace only"),
    supported("permissions.web_search"),
    limited("agent.model", "others than those listed here are passed on: the vendor decides"),
    limited("agent.effort", "refused for models that are not listed here"),
    limited("agent.system_prompt.append", "cannot change in a resumed session: the vendor keeps the first"),
    supported("agent.system_prompt.replace"),
    supported("agent.output_schema"),
    supported("input.image"),
    limited("limits.max_turns", "tools of the last round may not have finished"),
    limited("limits.max_tokens", "checked after each request to the model"),
    limited("limits.max_micro_usd", "checked after each request; tokens only; refused for models without a price"),
    limited("usage", "the vendor counts nothing for a request that broke or was interrupted; searches cost extra"),
    supported("mcp_servers.stdio"),
    unsupported("tools.files", "Alive's tools for files are not offered: Codex's own cannot be switched off"),
    limited("model_retry", "a 429 without retry-after is not asked again; one with it is waited for, whatever it says"),
    supported("history"),
    limited("ephemeral", "only in a new session"),
    supported("SteerTurn"),
    limited("ResolveApproval", "input cannot be changed; a denial's message does not reach the model"),
    supported("ReadItemContent"),
    supported("ListSessions"),
    supported("GetSession"),
    supported("ForkSession"),
    supported("ListItems"),
)


def capabilities(walls: Walls) -> list[provider_pb2.Capability]:
    """Return what it can do within some walls, or outside."""
    return [*walls.capabilities(), *(_OUTSIDE if not walls.stand else _INSIDE), *_COMMON]
