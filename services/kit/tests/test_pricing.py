"""What tokens cost, and how usage adds up."""

from hypothesis import given
from hypothesis import strategies as st

from alive.agent.v1 import usage_pb2
from alive_kit.pricing import Price, PriceTable, Rates, add_costs
from alive_kit.usage import Tally, add

CHEAP = Rates(input=1_000_000, cached_input=100_000, cache_write=1_250_000, output=5_000_000)
ODD = Rates(input=333, cached_input=7, cache_write=1, output=1_999)
DEAR = Rates(input=2_000_000, cached_input=200_000, cache_write=2_500_000, output=10_000_000)
TABLE = PriceTable(
    date="2026-01-02",
    models={"plain": Price(rates=CHEAP), "odd": Price(rates=ODD), "long": Price(rates=CHEAP, threshold=100, long=DEAR)},
)


@st.composite
def usages(draw: st.DrawFn) -> usage_pb2.Usage:
    """Draw what a request may have used: parts of its input are cached or written to the cache."""
    fresh, cached, written, output = (draw(st.integers(0, 10**7)) for _ in range(4))
    return usage_pb2.Usage(
        input_tokens=fresh + cached + written,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output,
    )


def nano(model: str, usage: usage_pb2.Usage) -> int:
    """Return what a request costs."""
    cost = TABLE.cost(model, usage)
    assert cost is not None
    return cost.nano_usd


def test_a_cost_is_exact() -> None:
    """Worked out by hand: 850 fresh, 100 cached, 50 written and 10 of output."""
    usage = usage_pb2.Usage(input_tokens=1000, cached_input_tokens=100, cache_write_tokens=50, output_tokens=10)

    cost = usage_pb2.Cost(nano_usd=850_000 + 10_000 + 62_500 + 50_000, price_date="2026-01-02")
    assert TABLE.cost("plain", usage) == cost


@given(usages())
def test_a_cost_is_rounded_up_to_a_billionth_once(usage: usage_pb2.Usage) -> None:
    """Never below the exact cost, and never a whole billionth above it."""
    fresh = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    exact = fresh * 333 + usage.cached_input_tokens * 7 + usage.cache_write_tokens + usage.output_tokens * 1_999

    assert 0 <= nano("odd", usage) * 1000 - exact < 1000


@given(usages(), usages(), st.sampled_from(sorted(TABLE.models)))
def test_more_tokens_never_cost_less(usage: usage_pb2.Usage, more: usage_pb2.Usage, model: str) -> None:
    """Whatever kind of token is added."""
    assert nano(model, add([usage, more])) >= nano(model, usage)


@given(st.lists(st.tuples(st.sampled_from(sorted(TABLE.models)), usages()), min_size=1, max_size=8))
def test_a_tally_costs_what_its_requests_cost(requests: list[tuple[str, usage_pb2.Usage]]) -> None:
    """The sum of the models is the sum of the requests, in tokens and in money."""
    tally = Tally(TABLE)
    for number, (model, usage) in enumerate(requests):
        tally.count(str(number), model, usage)
    total = tally.total()

    assert total.cost.nano_usd == sum(nano(model, usage) for model, usage in requests)
    assert total.cost == add_costs(part.usage.cost for part in total.models)
    assert total.input_tokens == sum(part.usage.input_tokens for part in total.models)
    assert total.model_requests == len(requests)


def test_a_long_request_costs_more_as_a_whole() -> None:
    """All input counts for the threshold, cached or not; output does not."""
    at = usage_pb2.Usage(input_tokens=100, cached_input_tokens=60, output_tokens=500)
    above = usage_pb2.Usage(input_tokens=101, cached_input_tokens=60, output_tokens=500)

    assert nano("long", at) == nano("plain", at)
    assert nano("long", above) == 2 * nano("plain", above)


def test_what_has_no_price_has_no_cost() -> None:
    """Neither has a sum with such a part, nor a request whose tokens are not known."""
    tally = Tally(TABLE)
    tally.count("1", "plain", usage_pb2.Usage(input_tokens=1, output_tokens=1))
    tally.count("2", "unheard-of", usage_pb2.Usage(input_tokens=1, output_tokens=1))
    total = tally.total()

    assert not total.HasField("cost")
    assert [part.usage.HasField("cost") for part in total.models] == [True, False]
    assert TABLE.cost("plain", usage_pb2.Usage(output_tokens=1)) is None
    assert not Tally(TABLE).total().ListFields()


def test_a_vendors_sum_adds_what_was_not_told() -> None:
    """A subagent's output is told only in the sum; an attempt that was given up only as it began."""
    tally = Tally(TABLE)
    tally.count("given up", "plain", usage_pb2.Usage(input_tokens=100, output_tokens=1))
    tally.count("agent", "plain", usage_pb2.Usage(input_tokens=100, output_tokens=20))
    tally.count("subagent", "plain", usage_pb2.Usage(input_tokens=100, output_tokens=1))
    tally.settle("plain", usage_pb2.Usage(input_tokens=200, output_tokens=50), left_out={"given up"})
    total = tally.total()

    assert (total.input_tokens, total.output_tokens, total.model_requests) == (300, 51, 3)
    assert total.cost.nano_usd == 300 * 1000 + 51 * 5000


def test_requests_that_are_known_only_together_cost_nothing_that_is_not_certain() -> None:
    """Where one of them may be above the threshold the sum has no cost."""
    tally = Tally(TABLE)
    tally.count("1", "long", usage_pb2.Usage(input_tokens=101, output_tokens=1))
    tally.settle("long", usage_pb2.Usage(input_tokens=101, output_tokens=9))

    assert not tally.total().HasField("cost")
    assert tally.total().output_tokens == 9
