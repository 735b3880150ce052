"""Says what a provider can do, one entry for each call or option that not every provider offers."""

from alive.agent.v1 import provider_pb2


def supported(name: str) -> provider_pb2.Capability:
    """Return that it can."""
    return provider_pb2.Capability(name=name, support=provider_pb2.CAPABILITY_SUPPORT_SUPPORTED)


def limited(name: str, limit: str) -> provider_pb2.Capability:
    """Return that it can, within a limit."""
    return provider_pb2.Capability(name=name, support=provider_pb2.CAPABILITY_SUPPORT_LIMITED, limit=limit)


def unsupported(name: str, why: str) -> provider_pb2.Capability:
    """Return that it cannot."""
    return provider_pb2.Capability(name=name, support=provider_pb2.CAPABILITY_SUPPORT_UNSUPPORTED, limit=why)
