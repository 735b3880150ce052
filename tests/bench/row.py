"""What a benchmark says: one row, a ratio to a rival measured in the same run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison: medians over interleaved rounds."""

    name: str
    """What was measured, in words."""
    ours: float
    rival: float
    ratio: float
    """Ours to the rival's: the median of the rounds' own ratios; not a number where the rival could not be started."""
    spread: tuple[float, float]
    """The least and the greatest of the rounds' ratios."""
    rival_name: str
    """Whom it was measured against."""
    goal: float | None = None
    """What the ratio is meant to be; None where nothing is promised."""
    more_is_better: bool = False
    """Whether the ratio is meant to be at least the goal; else at most."""


def compare(
    name: str,
    ours: Sequence[float],
    rival: Sequence[float],
    rival_name: str,
    *,
    goal: float | None = None,
    more_is_better: bool = False,
) -> Row:
    """Return the row of two series, a value of each for every round."""
    ratios = [one / max(other, 1e-9) for one, other in zip(ours, rival, strict=True)]
    return Row(
        name=name,
        ours=median(ours),
        rival=median(rival),
        ratio=median(ratios),
        spread=(min(ratios), max(ratios)),
        rival_name=rival_name,
        goal=goal,
        more_is_better=more_is_better,
    )


def against(name: str, ours: Sequence[float], bound: float, unit: str) -> Row:
    """Return the row of values that are meant to stay below a bound of the contract's."""
    ratios = [value / bound for value in ours]
    return Row(
        name=name,
        ours=median(ours),
        rival=bound,
        ratio=median(ratios),
        spread=(min(ratios), max(ratios)),
        rival_name=f"the bound, {bound:g} {unit}",
        goal=1.0,
    )


def absent(name: str, rival_name: str, why: str) -> Row:
    """Return the row of a rival that cannot be started here."""
    nan = math.nan
    return Row(name=name, ours=nan, rival=nan, ratio=nan, spread=(nan, nan), rival_name=f"{rival_name}: {why}")
