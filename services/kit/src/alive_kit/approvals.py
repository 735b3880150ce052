"""What an agent of one turn asks, and what is answered: the same rules for every provider.

An approval is an event, open until somebody decides, time is up, or the turn ends. What was allowed for the session is
not asked again in it, and ACCEPT_EDITS does not ask for changes to files of the workspace.
"""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta

import jsonschema

from alive.agent.v1 import approval_pb2, event_pb2, options_pb2
from alive_kit.errors import ApprovalClosed, ApprovalNotFound, InvalidField
from alive_kit.sessions import Session, Sessions

TEXT_CHARACTERS = 10_000
"""How long the message of a denial or an answer in free text may be."""

_ALLOWED = approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ALLOW_ONCE)
_YES_OR_NO = (
    approval_pb2.DECISION_KIND_ALLOW_ONCE,
    approval_pb2.DECISION_KIND_ALLOW_FOR_SESSION,
    approval_pb2.DECISION_KIND_DENY,
    approval_pb2.DECISION_KIND_DENY_AND_INTERRUPT,
)
_ANSWERS = (
    approval_pb2.DECISION_KIND_ANSWER,
    approval_pb2.DECISION_KIND_DENY,
    approval_pb2.DECISION_KIND_DENY_AND_INTERRUPT,
)
_ASKING_FOR_INPUT = frozenset({"questions", "elicitation"})


class Approvals:
    """The approvals of one turn."""

    def __init__(
        self,
        permissions: options_pb2.Permissions,
        timeout: float,
        session: Session,
        sessions: Sessions,
        emit: Callable[[event_pb2.Event], None],
    ) -> None:
        self._policy = permissions.approval_policy
        self._timeout = permissions.approval_timeout.ToNanoseconds() / 1e9 or timeout
        self._session = session
        self._sessions = sessions
        self._emit = emit
        self._open: dict[str, _Open] = {}
        self._closed: set[str] = set()

    @property
    def are_open(self) -> bool:
        """Whether somebody is waited for."""
        return bool(self._open)

    async def ask(self, asked: approval_pb2.ApprovalRequested) -> approval_pb2.Decision:
        """Return what is decided about something; a denial when nobody does."""
        subject = str(asked.WhichOneof("subject"))
        grant = _grant(asked)
        if self._is_edit_accepted(asked) or (subject not in _ASKING_FOR_INPUT and self._has_grant(grant)):
            return _ALLOWED
        asked.approval_id = asked.approval_id or f"approval-{uuid.uuid4()}"
        asked.decisions[:] = _ANSWERS if subject in _ASKING_FOR_INPUT else _YES_OR_NO
        asked.expire_time.GetCurrentTime()
        asked.expire_time.FromDatetime(asked.expire_time.ToDatetime() + timedelta(seconds=self._timeout))
        waiting = self._open[asked.approval_id] = _Open(asked)
        self._emit(event_pb2.Event(approval_requested=asked))
        try:
            async with asyncio.timeout(self._timeout):
                decision = await asyncio.shield(waiting.decision)
        except TimeoutError:
            decision = approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_DENY, message="Nobody answered in time.")
            self._close(asked.approval_id, decision, approval_pb2.DECIDED_BY_TIMEOUT)
        if decision.kind == approval_pb2.DECISION_KIND_ALLOW_FOR_SESSION:
            self._sessions.grant(self._session, grant)
        return decision

    def resolve(self, approval_id: str, decision: approval_pb2.Decision) -> None:
        """Take the first answer to an approval.

        Raises:
            ApprovalNotFound: nothing of this id was asked.
            ApprovalClosed: it was answered, timed out, or fell with its turn.
            InvalidField: the answer does not fit what was asked.
        """
        if approval_id in self._closed:
            raise ApprovalClosed(approval_id)
        waiting = self._open.get(approval_id)
        if waiting is None:
            raise ApprovalNotFound(approval_id)
        if violations := dict(_violations(waiting.asked, decision)):
            raise InvalidField(violations)
        self._close(approval_id, decision, approval_pb2.DECIDED_BY_CALLER)

    def close(self) -> None:
        """Deny everything that is open: the turn ends."""
        denied = approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_DENY, message="The turn ended.")
        for approval_id in list(self._open):
            self._close(approval_id, denied, approval_pb2.DECIDED_BY_TURN_END)
        self._emit = _ignore  # It has the turn, which has these approvals.

    def _close(
        self, approval_id: str, decision: approval_pb2.Decision, decided_by: "approval_pb2.DecidedBy.ValueType"
    ) -> None:
        waiting = self._open.pop(approval_id)
        self._closed.add(approval_id)
        if not waiting.decision.done():
            waiting.decision.set_result(decision)
        resolved = approval_pb2.ApprovalResolved(approval_id=approval_id, decision=decision, decided_by=decided_by)
        self._emit(event_pb2.Event(approval_resolved=resolved))

    def _has_grant(self, grant: str) -> bool:
        return self._sessions.has_grant(self._session, grant)

    def _is_edit_accepted(self, asked: approval_pb2.ApprovalRequested) -> bool:
        if self._policy != options_pb2.APPROVAL_POLICY_ACCEPT_EDITS or not asked.HasField("file_change"):
            return False
        paths = [path for change in asked.file_change.changes for path in (change.path, change.new_path) if path]
        return bool(paths) and not any(path.startswith("/") or ".." in path.split("/") for path in paths)


def _ignore(_event: event_pb2.Event) -> None:
    """Tell nobody."""


class _Open:
    """An approval that nobody has decided yet."""

    def __init__(self, asked: approval_pb2.ApprovalRequested) -> None:
        self.asked = asked
        self.decision: asyncio.Future[approval_pb2.Decision] = asyncio.get_running_loop().create_future()


def _grant(asked: approval_pb2.ApprovalRequested) -> str:
    """Return what makes two questions the same: the command, the files, the tool, or what is asked for beyond."""
    match asked.WhichOneof("subject"):
        case "command":
            same = ["command", asked.command.cwd, asked.command.command]
        case "file_change":
            same = ["file_change", *sorted(change.path for change in asked.file_change.changes)]
        case "tool_call":
            same = ["tool_call", asked.tool_call.server, asked.tool_call.tool]
        case subject:
            same = [str(subject), str(asked.escalation.network), *sorted(asked.escalation.paths)]
    return hashlib.sha256("\0".join(same).encode()).hexdigest()


Violation = tuple[str, str]


def _violations(asked: approval_pb2.ApprovalRequested, decision: approval_pb2.Decision) -> Iterator[Violation]:
    if decision.kind not in asked.decisions:
        names = ", ".join(approval_pb2.DecisionKind.Name(kind) for kind in asked.decisions)
        yield ("decision.kind", f"must be one of {names}")
        return
    if len(decision.message) > TEXT_CHARACTERS:
        yield ("decision.message", f"is over {TEXT_CHARACTERS} characters")
    if decision.changed_input_json:
        yield from _changed_input(asked, decision)
    if decision.kind != approval_pb2.DECISION_KIND_ANSWER:
        return
    if asked.HasField("questions"):
        yield from _answers(asked.questions, decision)
    else:
        yield from _content(asked.elicitation, decision)


def _changed_input(asked: approval_pb2.ApprovalRequested, decision: approval_pb2.Decision) -> Iterator[Violation]:
    field = "decision.changed_input_json"
    if not asked.accepts_changed_input:
        yield (field, "what is asked here cannot be changed: allow or deny it")
    elif decision.kind != approval_pb2.DECISION_KIND_ALLOW_ONCE:
        yield (field, "goes with ALLOW_ONCE only")
    elif not isinstance(_parsed(decision.changed_input_json), dict):
        yield (field, "must be a JSON object")


def _answers(questions: approval_pb2.QuestionSet, decision: approval_pb2.Decision) -> Iterator[Violation]:
    answered = [answer.question_id for answer in decision.answers]
    asked = {question.question_id: question for question in questions.questions}
    if sorted(answered) != sorted(asked):
        yield ("decision.answers", f"must answer each of {', '.join(asked)} once")
        return
    for index, answer in enumerate(decision.answers):
        field = f"decision.answers[{index}].values"
        if not answer.values or not all(0 < len(value) <= TEXT_CHARACTERS for value in answer.values):
            yield (field, f"needs a value; each at most {TEXT_CHARACTERS} characters")
        elif len(answer.values) > 1 and not asked[answer.question_id].multiple:
            yield (field, "only one may be chosen")


def _content(elicitation: approval_pb2.Elicitation, decision: approval_pb2.Decision) -> Iterator[Violation]:
    content = _parsed(decision.content_json) if decision.content_json else {}
    if not isinstance(content, dict):
        yield ("decision.content_json", "must be a JSON object")
    elif elicitation.schema_json:
        try:
            jsonschema.validate(content, json.loads(elicitation.schema_json))
        except jsonschema.ValidationError as error:
            yield ("decision.content_json", f"does not satisfy the schema: {error.message}")


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
