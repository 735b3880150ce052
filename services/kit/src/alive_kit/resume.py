"""What of a session the vendor is asked to continue."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """What the vendor is asked to continue."""

    native_session: str
    """The vendor's own id of the session."""

    fork_at: str | None = None
    """Where to fork a session of its own from it, in the vendor's own words (see `Turn.remember`); None continues."""

    is_settled: bool = True
    """Whether a turn of it has completed: until then a vendor whose CLI died may have kept nothing of it."""

    system_append: str = ""
    """What the system prompt of the session's first turn appended."""
