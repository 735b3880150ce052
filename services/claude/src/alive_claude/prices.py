"""What Claude's models cost: list prices, as Claude Code 2.1.330 itself reckons ``total_cost_usd`` by them.

Found by asking it what replies of a million tokens of one kind cost. It asks for cache writes of five minutes; those
of an hour, which cost twice the input, are not used. Beside tokens the vendor charges for searches of the web.
"""

from alive_kit.pricing import Price, PriceTable, Rates

PRICES = PriceTable(
    date="2026-11-25",
    models={
        "claude-opus-5-5": Price(
            rates=Rates(input=4_000_000, cached_input=200_000, cache_write=5_000_000, output=20_000_000)
        ),
        "claude-fable-5-2": Price(
            rates=Rates(input=8_000_000, cached_input=200_000, cache_write=10_000_000, output=40_000_000)
        ),
        "claude-sonnet-5-5": Price(
            rates=Rates(input=2_000_000, cached_input=100_000, cache_write=2_500_000, output=10_000_000)
        ),
        "claude-haiku-5-5": Price(
            rates=Rates(input=100_000, cached_input=10_000, cache_write=125_000, output=500_000),
            threshold=100_000,
            long=Rates(input=500_000, cached_input=50_000, cache_write=625_000, output=2_500_000),
        ),
    },
)
