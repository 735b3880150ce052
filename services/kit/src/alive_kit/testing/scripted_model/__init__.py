"""The scripted model: one server that speaks both vendors' HTTP APIs and says what a script tells it to.

It is the only fake of the system. Real CLIs are pointed at it by their base URL. A script is vendor-neutral: the same
one makes either agent run a command, change a file or call a tool, each with the tools of its own.
"""

from alive_kit.testing.scripted_model.control import ModelControl
from alive_kit.testing.scripted_model.journal import Entry
from alive_kit.testing.scripted_model.script import (
    Action,
    AskUser,
    CallTool,
    EditFile,
    Fault,
    RawTool,
    Reply,
    RunCommand,
    Script,
    TokenUsage,
    UpdatePlan,
    WebSearch,
    WriteFile,
)
from alive_kit.testing.scripted_model.server import ScriptedModel

__all__ = [
    "Action",
    "AskUser",
    "CallTool",
    "EditFile",
    "Entry",
    "Fault",
    "ModelControl",
    "RawTool",
    "Reply",
    "RunCommand",
    "Script",
    "ScriptedModel",
    "TokenUsage",
    "UpdatePlan",
    "WebSearch",
    "WriteFile",
]
