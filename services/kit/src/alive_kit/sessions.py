"""Knows the sessions of the service: which workspace owns them, the vendor's id of each, and which turn runs."""

from dataclasses import dataclass, field

from alive_kit.errors import SessionBusy, SessionNotFound


@dataclass(slots=True, kw_only=True)
class Session:
    """A lasting conversation in one workspace."""

    session_id: str
    workspace_id: str
    native_session: str = ""
    """The vendor's own id; empty until the vendor has said it."""
    running_turn: str = ""
    """The turn that runs in it; empty when it is idle."""


@dataclass(slots=True)
class SessionTable:
    """The sessions of the service."""

    _sessions: dict[tuple[str, str], Session] = field(default_factory=dict)

    def open(self, workspace_id: str, session_id: str) -> Session:
        """Return a new session."""
        session = Session(session_id=session_id, workspace_id=workspace_id)
        self._sessions[workspace_id, session_id] = session
        return session

    def find(self, workspace_id: str, session_id: str) -> Session:
        """Return a session of the workspace.

        Raises:
            SessionNotFound: the workspace has no such session.
        """
        session = self._sessions.get((workspace_id, session_id))
        if session is None:
            raise SessionNotFound(session_id)
        return session

    def find_idle(self, workspace_id: str, session_id: str) -> Session:
        """Return a session of the workspace in which no turn runs.

        Raises:
            SessionNotFound: the workspace has no such session.
            SessionBusy: a turn of it runs.
        """
        session = self.find(workspace_id, session_id)
        if session.running_turn:
            raise SessionBusy(session_id, session.running_turn)
        return session

    def forget(self, session: Session) -> None:
        """Drop a session."""
        self._sessions.pop((session.workspace_id, session.session_id), None)
