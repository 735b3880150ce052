"""The models Claude Code 2.1.330 offers, as it lists them itself; others are passed on and the vendor decides."""

from alive.agent.v1 import provider_pb2
from alive_claude.prices import PRICES

_EFFORTS = ("low", "medium", "high", "xhigh", "max")

DEFAULT = "claude-opus-5-5"


def _model(model: str, name: str) -> provider_pb2.Model:
    return provider_pb2.Model(
        model=model,
        display_name=name,
        default=model == DEFAULT,
        context_window=1_000_000,  # As the CLI says of each in its result.
        efforts=_EFFORTS,
        price_tier=PRICES.tier(model),
    )


MODELS = (
    _model(DEFAULT, "Opus 5.5"),
    _model("claude-fable-5-2", "Fable 5.2"),
    _model("claude-sonnet-5-5", "Sonnet 5.5"),
    _model("claude-haiku-5-5", "Haiku 5.5"),
)
