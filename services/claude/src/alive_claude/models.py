"""The models Claude Code 2.1.330 offers, as it lists them itself; others are passed on and the vendor decides."""

from alive.agent.v1 import provider_pb2

_EFFORTS = ("low", "medium", "high", "xhigh", "max")

MODELS = (
    provider_pb2.Model(
        model="claude-opus-5-5", display_name="Opus 5.5", default=True, efforts=_EFFORTS, price_tier="standard"
    ),
    provider_pb2.Model(model="claude-fable-5-2", display_name="Fable 5.2", efforts=_EFFORTS, price_tier="high"),
    provider_pb2.Model(model="claude-sonnet-5-5", display_name="Sonnet 5.5", efforts=_EFFORTS, price_tier="standard"),
    provider_pb2.Model(model="claude-haiku-5-5", display_name="Haiku 5.5", efforts=_EFFORTS, price_tier="low"),
)
