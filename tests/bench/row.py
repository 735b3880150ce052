"""What a benchmark says: one row, a ratio to a rival measured in the same run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison: medians over interleaved rounds."""

    name: str
    """What was measured, in words."""
    ours: float
    rival: float
    ratio: float
    """Ours to the rival's: the median of the rounds' own ratios."""
    spread: tuple[float, float]
    """The least and the greatest of the rounds' ratios."""
    rival_name: str
    """Whom it was measured against."""
    goal: float | None = None
    """What the ratio is meant to be; None where nothing is promised."""
    more_is_better: bool = False
    """Whether the ratio is meant to be at least the goal; else at most."""
