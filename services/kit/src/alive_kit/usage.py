"""Counts what the requests of a turn used, model by model, and what that costs."""

from collections.abc import Container, Iterable
from dataclasses import dataclass

from alive.agent.v1 import usage_pb2
from alive_kit.pricing import PriceTable, add_costs

_COUNTS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "model_requests",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A request, or several that are known only together."""

    model: str
    usage: usage_pb2.Usage


class Tally:
    """The requests of one turn."""

    def __init__(self, prices: PriceTable) -> None:
        self._prices = prices
        self._parts: dict[str, _Part] = {}

    @property
    def requests(self) -> int:
        """Requests to the model so far."""
        return sum(part.usage.model_requests for part in self._parts.values())

    def count(self, request_id: str, model: str, usage: usage_pb2.Usage) -> None:
        """Take what a request used: the latest word counts."""
        usage.model_requests = 1
        self._keep(request_id, model, usage, self._prices.cost(model, usage))

    def settle(self, model: str, spent: usage_pb2.Usage, left_out: Container[str] = ()) -> None:
        """Take what a model used in all by the vendor's own sum, in which some requests were left out.

        What it has beyond the requests that were counted is added: a vendor does not tell everything of each one.
        """
        parts = {name: part.usage for name, part in self._parts.items() if part.model == model}
        known = add(usage for name, usage in parts.items() if name not in left_out)
        rest = _rest(spent, known)
        if any(value for _, value in rest.ListFields()):
            largest = max((usage.input_tokens for usage in parts.values()), default=0)
            self._keep(f"rest of {model}", model, rest, self._prices.cost_of_many(model, rest, largest))

    def total(self) -> usage_pb2.Usage:
        """Return the sum, with each model's part of it."""
        total = add(part.usage for part in self._parts.values())
        for model in dict.fromkeys(part.model for part in self._parts.values()):
            total.models.add(model=model, usage=add(part.usage for part in self._parts.values() if part.model == model))
        return total

    def _keep(self, name: str, model: str, usage: usage_pb2.Usage, cost: usage_pb2.Cost | None) -> None:
        usage.ClearField("cost")
        if cost is not None:
            usage.cost.CopyFrom(cost)
        self._parts[name] = _Part(model=model, usage=usage)


def add(usages: Iterable[usage_pb2.Usage]) -> usage_pb2.Usage:
    """Return the sum of usages, without a breakdown; a count that none of them knows stays absent."""
    parts, total = list(usages), usage_pb2.Usage()
    for name in _COUNTS:
        values = [getattr(part, name) for part in parts if part.HasField(name)]  # type: ignore[arg-type]
        if values:
            setattr(total, name, sum(values))
    cost = add_costs(part.cost if part.HasField("cost") else None for part in parts)
    if cost is not None:
        total.cost.CopyFrom(cost)
    return total


def _rest(spent: usage_pb2.Usage, known: usage_pb2.Usage) -> usage_pb2.Usage:
    rest = usage_pb2.Usage()
    for name in _COUNTS[:-1]:
        if spent.HasField(name):  # type: ignore[arg-type]
            setattr(rest, name, max(0, getattr(spent, name) - getattr(known, name)))
    return rest
