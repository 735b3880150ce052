"""What a turn is doing when something fails: how it is brought there, and how one sees that it is there."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from alive.agent.v1 import options_pb2
from alive_kit.testing.scripted_model import CallTool, Reply, RunCommand

SERVER = """
import json, os, sys, time
def wait(seen):
    open(seen, "w").close()
    while not os.path.exists("go"):
        time.sleep(0.02)
os.chdir(os.environ["WORKSPACE"])
if os.environ["SLOW"]:
    wait("seen")
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    result = {}
    if asked["method"] == "initialize":
        info = {"name": "drill", "version": "1"}
        version = asked["params"]["protocolVersion"]
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    elif asked["method"] == "tools/list":
        schema = {"type": "object", "properties": {}}
        result = {"tools": [{"name": "wait", "description": "Waits.", "inputSchema": schema}]}
    elif asked["method"] == "tools/call":
        wait("seen")
        result = {"content": [{"type": "text", "text": "went on"}]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""
"""An MCP server that starts, or answers a call, when the workspace has a file ``go``; ``seen`` says that it waits."""

SAID = Reply(text="It is done now.", chunk=5, gap=0.05)

ASK = options_pb2.Permissions(approval_policy=options_pb2.APPROVAL_POLICY_ASK, approval_timeout=Duration(seconds=20))


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Something that a turn is doing."""

    replies: Sequence[Reply]
    seen: str = ""
    """The event that says that it does it; without one, the file ``seen`` in its workspace, or the model's journal."""
    is_asked: bool = False
    """Whether it is the model that says it, by having been asked."""
    slow_server: bool = False
    permissions: options_pb2.Permissions = field(default_factory=options_pb2.Permissions)


_WAIT = "touch seen; while [ ! -e go ]; do sleep 0.02; done"

PHASES = {
    "starting": Phase(replies=[SAID], slow_server=True),
    "asking": Phase(replies=[Reply(text="Thought for long.", chunk=9, gap=1.5)], is_asked=True),
    "speaking": Phase(replies=[Reply(text="This takes a while to say.", chunk=2, gap=0.15)], seen="item_delta"),
    "command": Phase(replies=[Reply(actions=[RunCommand(command=_WAIT)]), SAID]),
    "tool": Phase(replies=[Reply(actions=[CallTool(server="drill", tool="wait")]), SAID]),
    "approval": Phase(
        replies=[Reply(actions=[RunCommand(command="true")]), SAID], seen="approval_requested", permissions=ASK
    ),
}
