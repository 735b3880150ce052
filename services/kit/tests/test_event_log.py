"""When the events of a turn are kept: alone at once, a few together, a flood every few milliseconds."""

import asyncio

from alive_kit.event_log import FLOOD_TICKS, EventLog
from alive_kit.testing.fakes import delta

BOUND = 10


class Kept:
    """What was kept, by the seqs of the first events."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.log = EventLog(keep=lambda seq, _: self.seqs.append(seq))


async def test_an_event_that_comes_alone_is_kept_at_once() -> None:
    """And those that follow it in the same tick at its end."""
    kept = Kept()
    kept.log.append(delta("one"))
    at_once = list(kept.seqs)
    kept.log.append(delta("two"))
    kept.log.append(delta("three"))
    waiting = list(kept.seqs)
    await asyncio.sleep(0)

    assert at_once == waiting == [1]
    assert kept.seqs == [1, 2]


async def test_a_flood_is_kept_in_few_pieces_and_nothing_of_it_is_missing() -> None:
    """With an event in each of a thousand ticks, far fewer writes than ticks; then the last ones come by themselves."""
    kept, ticks = Kept(), 1_000
    for number in range(ticks):
        kept.log.append(delta(str(number)))
        await asyncio.sleep(0)
    kept.log.append(delta("last"), terminal=True)
    async with asyncio.timeout(BOUND):
        shown = [response async for response in kept.log.follow(after_seq=0)]

    assert FLOOD_TICKS < len(kept.seqs) < ticks / 4
    assert len(list(EventLog.ended(shown)._frames)) == ticks + 1


async def test_the_last_events_of_a_flood_are_shown_without_another_one() -> None:
    """Nothing waits for what may never come."""
    kept = Kept()
    for number in range(100):
        kept.log.append(delta(str(number)))
        await asyncio.sleep(0)
    seen = 0
    async with asyncio.timeout(BOUND):
        async for response in kept.log.follow(after_seq=0):
            seen += len(EventLog.ended([response])._frames)
            if seen == 100:
                break

    assert seen == 100
