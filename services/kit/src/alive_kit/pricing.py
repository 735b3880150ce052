"""Prices what a model used, by the dated table of its vendor.

Whole numbers only: a rate in millionths of a dollar for a million tokens is the price of one token in trillionths of a
dollar. The cost of a request is rounded up to a whole billionth once; sums of requests are exact. What the table does
not price has no cost, and neither has a sum with such a part: nothing is guessed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from alive.agent.v1 import usage_pb2

_STANDARD, _HIGH = 5_000_000, 40_000_000
"""From which price of output a model is in the class ``standard``, and from which in ``high``."""

_TRILLIONTHS = 1000
"""Trillionths of a dollar in a billionth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a million tokens cost, in millionths of a US dollar."""

    input: int
    """Input that is neither read from the vendor's cache nor written to it."""

    cached_input: int
    cache_write: int
    output: int
    """Output, reasoning included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What requests to a model cost."""

    rates: Rates

    threshold: int | None = None
    """Tokens of input, cached included, above which a request costs ``long`` as a whole; None where there is none."""

    long: Rates | None = None

    def rates_of(self, input_tokens: int) -> Rates:
        """Return the rates of a request with so much input."""
        is_long = self.threshold is not None and input_tokens > self.threshold
        return self.long if is_long and self.long else self.rates


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """A vendor's prices, as they were on a day."""

    date: str
    """As YYYY-MM-DD."""

    models: Mapping[str, Price]

    def tier(self, model: str) -> str:
        """Return a model's rough class of price; empty where it has none."""
        if model not in self.models:
            return ""
        output = self.models[model].rates.output
        return "low" if output < _STANDARD else "standard" if output < _HIGH else "high"

    def cost(self, model: str, usage: usage_pb2.Usage) -> usage_pb2.Cost | None:
        """Return what one request costs; None where its model has no price or its tokens are not known."""
        price = self.models.get(model)
        if price is None or not (usage.HasField("input_tokens") and usage.HasField("output_tokens")):
            return None
        rates = price.rates_of(usage.input_tokens)
        fresh = max(0, usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens)
        trillionths = (
            fresh * rates.input
            + usage.cached_input_tokens * rates.cached_input
            + usage.cache_write_tokens * rates.cache_write
            + usage.output_tokens * rates.output
        )
        return usage_pb2.Cost(nano_usd=-(-trillionths // _TRILLIONTHS), price_date=self.date)

    def cost_of_many(self, model: str, usage: usage_pb2.Usage, largest_input: int) -> usage_pb2.Cost | None:
        """Return what several requests cost whose tokens are known only together.

        None also where the largest of them, or all input at once, is above the threshold: they cannot be told apart.
        """
        price = self.models.get(model)
        largest = max(largest_input, usage.input_tokens)
        if price is None or price.rates_of(largest) != price.rates:
            return None
        return self.cost(model, usage)


def add_costs(costs: Iterable[usage_pb2.Cost | None]) -> usage_pb2.Cost | None:
    """Return the sum of costs by one table; None where one is not known, or there are none."""
    known = list(costs)
    if not known or None in known:
        return None
    priced = [cost for cost in known if cost is not None]
    return usage_pb2.Cost(nano_usd=sum(cost.nano_usd for cost in priced), price_date=priced[0].price_date)
