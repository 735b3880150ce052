"""Refuses what no provider could honour: for the model that is asked, and of tools that there are not."""

from collections.abc import Collection, Iterable, Iterator

from alive.agent.v1 import agent_service_pb2, provider_pb2
from alive_kit.pricing import PriceTable
from alive_kit.provider import Unsupported


def model_refusals(
    request: agent_service_pb2.StartTurnRequest, model: str, models: Iterable[provider_pb2.Model], prices: PriceTable
) -> Iterator[Unsupported]:
    """Yield the options that the model does not offer: an effort, and a budget of money where it has no price."""
    effort = request.agent.effort
    efforts = [offered for listed in models if listed.model == model for offered in listed.efforts]
    if effort and effort not in efforts:
        offers = f"offers {', '.join(efforts)}" if efforts else "is not listed, so its efforts are not known"
        yield Unsupported(field="agent.effort", why=f"{model} {offers}")
    if request.limits.HasField("max_micro_usd") and model not in prices.models:
        why = f"{model} is not in the price table of {prices.date}; use limits.max_tokens"
        yield Unsupported(field="limits.max_micro_usd", why=why)


def tool_refusals(request: agent_service_pb2.StartTurnRequest, own: Collection[str]) -> Iterator[Unsupported]:
    """Yield rules whose name no tool of the provider or of the turn's MCP servers can have: they would not be kept."""
    servers = tuple(f"mcp__{server.name}__" for server in request.mcp_servers)
    for name in [*request.permissions.tools.allowed, *request.permissions.tools.denied]:
        if name not in own and not name.startswith(servers):
            known = ", ".join([*own, *(f"{server}<tool>" for server in servers)]) or "none that can be named"
            yield Unsupported(field="permissions.tools", why=f"there is no tool {name!r}; there is {known}")
