"""Scripts: what the model says, reply by reply, in words that fit every vendor."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunCommand:
    """Run a shell command in the workspace."""

    command: str
    kind: Literal["run_command"] = "run_command"


@dataclass(frozen=True, kw_only=True)
class WriteFile:
    """Write a file of the workspace."""

    path: str
    content: str
    kind: Literal["write_file"] = "write_file"


@dataclass(frozen=True, kw_only=True)
class EditFile:
    """Replace a line of a file of the workspace. The agent must have read or written the file before."""

    path: str
    old: str
    new: str
    kind: Literal["edit_file"] = "edit_file"


@dataclass(frozen=True, kw_only=True)
class CallTool:
    """Call a tool of an MCP server."""

    server: str
    tool: str
    arguments: dict[str, object] = Field(default_factory=dict)
    kind: Literal["call_tool"] = "call_tool"


@dataclass(frozen=True, kw_only=True)
class UpdatePlan:
    """State the plan: each step with ``pending``, ``in_progress`` or ``completed``."""

    steps: list[tuple[str, Literal["pending", "in_progress", "completed"]]]
    kind: Literal["update_plan"] = "update_plan"


@dataclass(frozen=True, kw_only=True)
class WebSearch:
    """Search the web."""

    query: str
    kind: Literal["web_search"] = "web_search"


@dataclass(frozen=True, kw_only=True)
class AskUser:
    """Ask the user a question with options."""

    question: str
    options: list[str]
    kind: Literal["ask_user"] = "ask_user"


@dataclass(frozen=True, kw_only=True)
class RawTool:
    """Call a vendor's tool by its own name; for what no other action says."""

    name: str
    arguments: dict[str, object] = Field(default_factory=dict)
    kind: Literal["raw_tool"] = "raw_tool"


Action = Annotated[
    RunCommand | WriteFile | EditFile | CallTool | UpdatePlan | WebSearch | AskUser | RawTool,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, kw_only=True)
class TokenUsage:
    """What the reply is said to have used, in tokens."""

    input: int = 100
    cached: int = 0
    cache_write: int = 0
    output: int = 20
    reasoning: int = 0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with a reply."""

    status: int = 0
    """An HTTP status instead of a reply."""
    code: str = ""
    """The vendor's error code that goes with the status, or with an error in mid-stream."""
    message: str = ""
    """The vendor's words; ``scripted <code>`` without it."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers of the error, for example ``retry-after``."""
    drop_after: int = -1
    """Break the connection after so many deltas; 0 before any header, unless ``answered``."""
    stall_after: int = -1
    """Go silent after so many deltas, until the caller leaves or the model is released; 0 as for ``drop_after``."""
    error_after: int = -1
    """Send the vendor's error event after so many deltas; 0 as the first thing of the stream."""
    answered: bool = False
    """Whether what happens after 0 deltas comes after the headers of a good answer."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model answers to one request."""

    reasoning: str = ""
    text: str = ""
    actions: list[Action] = Field(default_factory=list)
    usage: TokenUsage = Field(default_factory=TokenUsage)
    stop: Literal["end_turn", "max_tokens", "refusal"] = "end_turn"
    chunk: int = 16
    """Characters of a delta."""
    gap: float = 0.0
    """Seconds between deltas."""
    fault: Fault | None = None
    repeat: int = 1
    """To how many requests it is given."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """Replies in order, one for each request of a session."""

    replies: list[Reply]
    loop: bool = False
    """Begin again after the last."""

    def reply(self, index: int) -> Reply:
        """Return the answer to a session's request, counted from 0."""
        expanded = [reply for reply in self.replies for _ in range(reply.repeat)]
        if self.loop:
            return expanded[index % len(expanded)]
        if index < len(expanded):
            return expanded[index]
        return Reply(text=f"The script has no more replies: this is request {index + 1} of {len(expanded)}.")


SCRIPT = TypeAdapter(Script)
"""Reads and writes scripts as JSON."""
