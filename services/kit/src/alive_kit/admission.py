"""Decides which turns run at once and which wait, fairly between owners.

A turn enters and has a place: it runs at once where there is room, and waits otherwise; when a turn leaves, the next
one is admitted. Owners take turns: the one whose last turn was admitted longest ago comes first. Interactive turns come
before background turns, but not more than a few in a row while one of those could run. No wait goes on for ever.

There is no await and no clock in here but the one given: what is decided follows from who entered and left.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count

from alive_kit.errors import AdmissionRefused

INTERACTIVE_IN_A_ROW = 4
"""How many interactive turns are admitted while a background turn could run instead."""

_FIRST_GUESS_SECONDS = 30.0
"""How long a turn takes, before any has ended."""

_RETRY_SECONDS = (1.0, 120.0)
"""The shortest and the longest time after which a caller is asked to come again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How many turns run and wait: in all, of one owner, and in one workspace."""

    turns: int = 20
    turns_of_owner: int = 3
    turns_of_workspace: int = 6
    queued: int = 200
    queued_of_owner: int = 10
    queued_of_workspace: int = 20


@dataclass(eq=False, slots=True, kw_only=True)
class Place:
    """A turn's place, running or waiting."""

    admission: "Admission"
    owner_id: str
    workspace_id: str
    is_background: bool
    arrival: int
    admitted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the turn may run."""
    admit_time: float = 0.0

    @property
    def position(self) -> int:
        """How many turns are admitted until this one is, as things stand: 1 is the next."""
        return self.admission.position(self)

    @property
    def why(self) -> str:
        """What the turn waits for, in words."""
        return self.admission.why(self)

    def leave(self) -> None:
        """Give the place back, whether the turn ran or still waited. May be called twice."""
        self.admission.leave(self)


class Admission:
    """The places of a service."""

    def __init__(self, capacity: Capacity, clock: Callable[[], float]) -> None:
        self._capacity = capacity
        self._clock = clock
        self._running: list[Place] = []
        self._waiting: list[Place] = []
        self._arrivals = count()
        self._admissions = count(1)
        self._last: dict[str, int] = {}
        """Which admission was the latest of each owner that has a place."""
        self._in_a_row = 0
        self._seconds = _FIRST_GUESS_SECONDS

    def enter(self, workspace_id: str, owner_id: str, *, is_background: bool) -> Place:
        """Return the place of a turn, admitted where there is room. Without an owner the workspace is its own.

        Raises:
            AdmissionRefused: it would have to wait, and too many do.
        """
        place = Place(
            admission=self,
            owner_id=owner_id or f"workspace {workspace_id}",
            workspace_id=workspace_id,
            is_background=is_background,
            arrival=next(self._arrivals),
        )
        if self._obstacle(place):
            self._check_queues(place)
        self._waiting.append(place)
        self._admit()
        return place

    def leave(self, place: Place) -> None:
        """Give a place back, whether its turn ran or still waited. May be called twice."""
        if place in self._waiting:
            self._waiting.remove(place)
        elif place in self._running:
            self._running.remove(place)
            self._seconds += (self._clock() - place.admit_time - self._seconds) / 8
        self._admit()
        owners = {kept.owner_id for kept in (*self._running, *self._waiting)}
        self._last = {owner: admission for owner, admission in self._last.items() if owner in owners}

    def has_turns(self, workspace_id: str) -> bool:
        """Whether a workspace has a turn that runs or waits."""
        return any(place.workspace_id == workspace_id for place in (*self._running, *self._waiting))

    def position(self, place: Place) -> int:
        """Return how many turns are admitted until a waiting one is, as things stand: 1 is the next."""
        return 1 + next(index for index, waiting in enumerate(self._order()) if waiting is place)

    def why(self, place: Place) -> str:
        """Return what a turn waits for, in words."""
        return self._obstacle(place) or "its place comes after others that have waited longer"

    def _admit(self) -> None:
        """Admit turns until there is no room, or none that fits."""
        while fitting := [place for place in self._waiting if not self._obstacle(place)]:
            place = self._first(fitting)
            others_wait = any(other.is_background for other in fitting)
            self._in_a_row = self._in_a_row + 1 if others_wait and not place.is_background else 0
            self._waiting.remove(place)
            self._running.append(place)
            self._last[place.owner_id] = next(self._admissions)
            place.admit_time = self._clock()
            place.admitted.set()

    def _first(self, fitting: list[Place]) -> Place:
        """Return which of the places that fit comes first."""
        background_is_due = self._in_a_row >= INTERACTIVE_IN_A_ROW
        return min(
            fitting,
            key=lambda place: (
                place.is_background != background_is_due,
                self._last.get(place.owner_id, 0),
                place.arrival,
            ),
        )

    def _order(self) -> Iterator[Place]:
        """Yield the waiting places in the order in which they would be admitted if all of them fitted."""
        urgent = _by_turns((place for place in self._waiting if not place.is_background), self._last)
        patient = _by_turns((place for place in self._waiting if place.is_background), self._last)
        in_a_row = self._in_a_row
        while urgent or patient:
            is_patient = patient and (not urgent or in_a_row >= INTERACTIVE_IN_A_ROW)
            in_a_row = 0 if is_patient else in_a_row + 1
            yield patient.pop(0) if is_patient else urgent.pop(0)

    def _obstacle(self, place: Place) -> str:
        """Return why a turn cannot run now; empty when it can."""
        capacity = self._capacity
        if _count(self._running, owner_id=place.owner_id) >= capacity.turns_of_owner:
            return f"as many turns of its owner are running as may ({capacity.turns_of_owner})"
        if _count(self._running, workspace_id=place.workspace_id) >= capacity.turns_of_workspace:
            return f"as many turns of its workspace are running as may ({capacity.turns_of_workspace})"
        if len(self._running) >= capacity.turns:
            return f"as many turns are running as may ({capacity.turns})"
        return ""

    def _check_queues(self, place: Place) -> None:
        capacity = self._capacity
        if _count(self._waiting, owner_id=place.owner_id) >= capacity.queued_of_owner:
            raise self._refusal("owner", capacity.queued_of_owner, capacity.turns_of_owner)
        if _count(self._waiting, workspace_id=place.workspace_id) >= capacity.queued_of_workspace:
            raise self._refusal("workspace", capacity.queued_of_workspace, capacity.turns_of_workspace)
        if len(self._waiting) >= capacity.queued:
            raise self._refusal("service", capacity.queued, capacity.turns)

    def _refusal(self, scope: str, waiting: int, running: int) -> AdmissionRefused:
        """Return the refusal of a turn for which there is no room even to wait; one will be gone soon."""
        shortest, longest = _RETRY_SECONDS
        seconds = min(max(self._seconds / max(running, 1), shortest), longest)
        return AdmissionRefused(
            f"as many turns of this {scope} are waiting as may ({waiting})",
            scope=scope,
            retry_after=timedelta(seconds=seconds),
        )


def _by_turns(places: Iterable[Place], last: dict[str, int]) -> list[Place]:
    """Return places in rounds: of each owner the first, then of each the second, and so on."""
    rounds: dict[str, int] = {}
    keys = {}
    for place in places:
        rounds[place.owner_id] = rounds.get(place.owner_id, 0) + 1
        keys[place] = (rounds[place.owner_id], last.get(place.owner_id, 0), place.arrival)
    return sorted(keys, key=lambda place: keys[place])


def _count(places: Iterable[Place], *, owner_id: str = "", workspace_id: str = "") -> int:
    return sum(place.owner_id == owner_id if owner_id else place.workspace_id == workspace_id for place in places)
