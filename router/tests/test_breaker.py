"""The breaker: opens after failures in a row, tries after each back-off, closes with a success."""

from hypothesis import given
from hypothesis import strategies as st

from alive_router.breaker import FAILURES, FIRST_SECONDS, LONGEST_SECONDS, Breaker


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    """Return a breaker that has just opened."""
    breaker = Breaker(clock=clock)
    for _ in range(FAILURES):
        assert breaker.admit()
        breaker.failed()
    return breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    """A success in between begins the count anew."""
    breaker = Breaker(clock=Clock())
    for _ in range(FAILURES - 1):
        breaker.failed()
    breaker.succeeded()
    breaker.failed()

    assert breaker.admit()
    assert not opened(Clock()).admit()


def test_an_open_one_lets_one_turn_try_after_each_back_off() -> None:
    """Which doubles with every failure; a try whose end is never told blocks nothing for ever."""
    clock = Clock()
    breaker = opened(clock)
    waits = []
    for _ in range(8):
        waits.append(breaker.wait())
        clock.now += waits[-1]
        assert breaker.admit()
        assert not breaker.admit()
        breaker.failed()
    clock.now += LONGEST_SECONDS
    tried = breaker.admit()
    clock.now += LONGEST_SECONDS

    assert waits == [FIRST_SECONDS * factor for factor in (1, 2, 4, 8)] + [LONGEST_SECONDS] * 4
    assert tried
    assert breaker.admit()


def test_a_try_that_succeeds_closes_it() -> None:
    """For every turn."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += FIRST_SECONDS
    assert breaker.admit()
    breaker.succeeded()

    assert [breaker.admit() for _ in range(3)] == [True, True, True]
    assert breaker.wait() == 0


@given(st.lists(st.sampled_from(["ask", "ok", "bad", "later"]), max_size=100))
def test_it_never_stays_open_longer_than_the_longest_back_off(steps: list[str]) -> None:
    """Whatever happens."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    for step in steps:
        match step:
            case "ask":
                breaker.admit()
            case "ok":
                breaker.succeeded()
            case "bad":
                breaker.failed()
            case "later":
                clock.now += 0.7
        assert 0 <= breaker.wait() <= LONGEST_SECONDS
    clock.now += LONGEST_SECONDS

    assert breaker.admit()
