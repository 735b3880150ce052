"""The models the Codex CLI 0.163.0 offers, as it lists them itself; others are passed on and the vendor decides."""

from alive.agent.v1 import provider_pb2
from alive_codex.prices import PRICES

# Not "ultra", which the CLI lists for some: it asks with another effort, and works with subagents, which are off.
_EFFORTS = ("low", "medium", "high", "xhigh")
_MAX = (*_EFFORTS, "max")

DEFAULT = "gpt-5.5"
"""The one whose tools are functions. The CLI's own default calls its tools from JavaScript, which few compatible
endpoints understand."""


def _model(model: str, name: str, efforts: tuple[str, ...], default_effort: str) -> provider_pb2.Model:
    return provider_pb2.Model(
        model=model,
        display_name=name,
        default=model == DEFAULT,
        efforts=efforts,
        default_effort=default_effort,
        context_window=258_400,  # What the CLI uses of each model's 272,000.
        price_tier=PRICES.tier(model),
    )


MODELS = (
    _model(DEFAULT, "GPT-5.5", _EFFORTS, "medium"),
    _model("gpt-6.1-sol", "GPT-6.1-Sol", _MAX, "low"),
    _model("gpt-6-astra", "GPT-6-Astra", _MAX, "low"),
    _model("gpt-6-sol", "GPT-6-Sol", _MAX, "medium"),
    _model("gpt-6-luna", "GPT-6-Luna", _MAX, "medium"),
    _model("gpt-5.6-sol", "GPT-5.6-Sol", _MAX, "low"),
    _model("gpt-5.6-terra", "GPT-5.6-Terra", _MAX, "medium"),
    _model("gpt-5.6-luna", "GPT-5.6-Luna", _MAX, "medium"),
)
