"""A provider's service as a process of its own, for tests that kill it: its agents use tokens and wait a little."""

import asyncio

from alive_kit.service import main
from alive_kit.testing.fakes import FakeAgent, FakeProvider, answers, delta, message_started, started, usage


async def _works(_agent: FakeAgent) -> None:
    """Take a while, as a vendor does: what is killed meanwhile is killed in the middle of turns."""
    await asyncio.sleep(0.05)


def create_provider() -> FakeProvider:
    """Return the provider."""
    script = [started(), usage(7, 1), message_started(), delta("Hel"), _works, *answers("Hello.")[2:]]
    return FakeProvider({"default": script}, provider_id="red")


if __name__ == "__main__":
    main(create_provider)
