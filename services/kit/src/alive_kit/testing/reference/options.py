"""What the reference provider can do, and which options of a request it refuses."""

from collections.abc import Iterator

from alive.agent.v1 import agent_service_pb2, options_pb2, provider_pb2
from alive_kit.capabilities import limited, supported, unsupported
from alive_kit.provider import Unsupported
from alive_kit.refusals import model_refusals, tool_refusals
from alive_kit.testing.reference.prices import PRICES
from alive_kit.testing.reference.tools import OWN
from alive_kit.walls import Walls

MODEL = provider_pb2.Model(
    model="reference-1",
    display_name="Reference 1",
    default=True,
    efforts=("low", "high"),
    default_effort="low",
    context_window=200_000,
    price_tier=PRICES.tier("reference-1"),
)

_NO_BOX = "without a launcher there is no box"
_REFUSED = {
    "permissions.extra_directories": "an agent has its own workspace only",
    "permissions.web_search": "it has no such tool",
}
"""Options that it cannot honour, and why."""

_CAPABILITIES = (
    *(supported(f"permissions.approval_policy.{policy}") for policy in ("BYPASS", "PLAN", "ASK", "ACCEPT_EDITS")),
    limited("permissions.tools", "a rule must name a tool of its own or of a declared MCP server"),
    *(unsupported(name, why) for name, why in _REFUSED.items()),
    unsupported("warm_sessions", "its program ends with its turn"),
    supported("tools.files"),
    limited("agent.effort", "refused for models that are not listed here"),
    supported("agent.output_schema"),
    *(supported(f"agent.system_prompt.{name}") for name in ("append", "replace")),
    *(supported(name) for name in ("input.image", "history", "limits.max_turns", "mcp_servers.stdio", "model_retry")),
    limited("limits.max_tokens", "checked after each request to the model"),
    limited("limits.max_micro_usd", "checked after each request; refused for models without a price"),
    *(supported(name) for name in ("ephemeral", "SteerTurn", "ResolveApproval", "ReadItemContent")),
    *(supported(name) for name in ("ListSessions", "GetSession", "ForkSession", "DeleteSession", "ListItems")),
)
_OUTSIDE = (
    unsupported("permissions.sandbox.READ_ONLY", _NO_BOX),
    unsupported("permissions.sandbox.WORKSPACE_WRITE", _NO_BOX),
    supported("permissions.sandbox.FULL_ACCESS"),
    limited("permissions.network", f"only on: {_NO_BOX}"),
)


def capabilities(walls: Walls) -> Iterator[provider_pb2.Capability]:
    """Yield what the provider can do, in boxes or without."""
    yield from walls.capabilities()
    yield from () if walls.stand else _OUTSIDE
    yield from _CAPABILITIES


def refusals(request: agent_service_pb2.StartTurnRequest, walls: Walls) -> Iterator[Unsupported]:
    """Yield every option that would not be honoured."""
    yield from walls.refusals(request)
    permissions = request.permissions
    if not walls.stand and permissions.sandbox not in {0, options_pb2.SANDBOX_FULL_ACCESS}:
        yield Unsupported(field="permissions.sandbox", why=_NO_BOX)
    if not walls.stand and permissions.HasField("network") and not permissions.network:
        yield Unsupported(field="permissions.network", why=_NO_BOX)
    asked = {
        "permissions.extra_directories": permissions.extra_directories,
        "permissions.web_search": permissions.web_search,
    }
    yield from (Unsupported(field=field, why=_REFUSED[field]) for field, is_asked in asked.items() if is_asked)
    yield from tool_refusals(request, OWN)
    yield from model_refusals(request, request.agent.model or MODEL.model, (MODEL,), PRICES)
