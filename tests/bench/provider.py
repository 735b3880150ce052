"""A provider of the kit without a vendor, as a service: ``python -m tests.bench.provider``.

Its agents say what the prompt asks for: ``flood EVENTS``, or ``paced SECONDS EVENTS_PER_SECOND`` with times in it.
"""

import asyncio
import time
from collections.abc import Iterator

from alive.agent.v1 import event_pb2
from alive_kit.fairness import Slice
from alive_kit.provider import Turn, TurnSpec
from alive_kit.service import main
from alive_kit.testing.fakes import FakeAgent, FakeProvider, delta, message_completed, message_started, started

from .ends import TEXT


class Agent(FakeAgent):
    """Says what it is asked for."""

    async def run(self, turn: Turn) -> event_pb2.TurnCompleted | None:
        """Run a prompt."""
        turn.emit(started())
        turn.emit(message_started())
        match turn.spec.request.input[0].text.split():
            case ["paced", seconds, rate]:
                for due in _times(float(seconds), float(rate)):
                    await asyncio.sleep(due - time.perf_counter())
                    turn.emit(delta(f"{time.perf_counter_ns()} {TEXT}"))
            case ["flood", events]:
                time_slice = Slice()
                for _ in range(int(events)):
                    turn.emit(delta(TEXT))
                    await time_slice.share()
                    if self.interrupted.is_set():
                        return None
            case _:
                await self.interrupted.wait()
                return None
        turn.emit(message_completed("done"))
        return event_pb2.TurnCompleted(stop_reason=event_pb2.STOP_REASON_END_TURN)


class Provider(FakeProvider):
    """Starts such agents."""

    async def start(self, spec: TurnSpec) -> FakeAgent:
        """Return an agent."""
        return Agent({}, rests=False)


def _times(seconds: float, rate: float) -> Iterator[float]:
    start = time.perf_counter()
    return (start + number / rate for number in range(round(seconds * rate)))


if __name__ == "__main__":
    main(Provider)
