"""What the models of the Codex CLI cost: OpenAI's standard prices.

Source: developers.openai.com/api/docs/pricing, as public repositories quote it from 2026-10-01 and 2026-10-04. The
vendor charges more for requests above 272,000 tokens of input; the CLI keeps below (codex 0.163.0: the window of each
model is 272,000). A cache write of gpt-5.5 has no price of its own: it is ordinary input. Beside tokens the vendor
charges for searches of the web.
"""

from alive_kit.pricing import Price, PriceTable, Rates


def _price(input_: int, cached_input: int, cache_write: int, output: int) -> Price:
    return Price(rates=Rates(input=input_, cached_input=cached_input, cache_write=cache_write, output=output))


PRICES = PriceTable(
    date="2026-10-01",
    models={
        "gpt-5.5": _price(5_000_000, 500_000, 5_000_000, 30_000_000),
        "gpt-6.1-sol": _price(2_000_000, 100_000, 2_500_000, 10_000_000),
        "gpt-6-astra": _price(10_000_000, 1_000_000, 12_500_000, 50_000_000),
        "gpt-6-sol": _price(2_000_000, 200_000, 2_500_000, 10_000_000),
        "gpt-6-luna": _price(100_000, 10_000, 125_000, 500_000),
        "gpt-5.6-sol": _price(4_000_000, 400_000, 5_000_000, 20_000_000),
        "gpt-5.6-terra": _price(2_000_000, 200_000, 2_500_000, 12_000_000),
        "gpt-5.6-luna": _price(200_000, 20_000, 250_000, 1_200_000),
    },
)
