"""What the reference agent's model costs. It is nobody's: the price is our own."""

from alive_kit.pricing import Price, PriceTable, Rates

PRICES = PriceTable(
    date="2026-11-25",
    models={
        "reference-1": Price(
            rates=Rates(input=1_000_000, cached_input=100_000, cache_write=1_250_000, output=5_000_000)
        ),
    },
)
