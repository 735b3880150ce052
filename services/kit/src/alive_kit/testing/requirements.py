"""What every provider owes its callers, in words. Each is tied to tests, and each test of the suite to one of them."""

from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., object])

REQUIREMENTS = {
    "turn:stream": "A turn streams started, items with deltas, usage and one terminal, numbered without gaps.",
    "turn:usage": "Usage counts this turn's tokens, cached and reasoning tokens included, and no earlier turn's.",
    "usage:failed": "Requests that failed, broke or were interrupted count what the vendor said of them.",
    "usage:models": "Every model of a turn is counted by itself, those of subagents included.",
    "usage:cost": "A turn costs what the dated price table says; what has no price there is not priced.",
    "turn:outcome": "Each turn that ended has one outcome with its usage and model, ephemeral and failed ones too.",
    "turn:parallel": "Turns of different sessions run at the same time, in a workspace that is new too.",
    "turn:queued": "A turn that must wait says so and runs in its turn; an interrupt ends it while it waits.",
    "turn:declined": "Where another provider may take over, a turn that fails before the model speaks leaves nothing.",
    "turn:failover": "A turn that its provider's vendor refuses before the model speaks is taken by the next provider.",
    "turn:drain": "A service that is asked to end takes no new turns, lets running ones finish, and has all once back.",
    "turn:raw": "With include_raw every event of the vendor's carries the vendor's JSON; without it none does.",
    "turn:memory": "Of an agent that has ended nothing is left in its service's memory.",
    "turn:validate-only": "validate_only checks a request, starts nothing and sends no event.",
    "item:reasoning": "Reasoning is an item of its own.",
    "item:command": "A command has its line, its output and its exit code; one that fails is a failed item.",
    "item:file-change": "A changed file has a path inside the workspace, a kind and a unified diff.",
    "item:plan": "A plan has steps with states.",
    "item:web-search": "A search of the web has its query.",
    "item:tool-call": "A call of an MCP tool has server, tool, arguments and result.",
    "item:retracted": "What an abandoned attempt streamed is retracted, and said again by the next attempt.",
    "mcp:environment": "An MCP server sees what is declared for it and nothing of the service.",
    "mcp:optional": "An optional MCP server that does not start is a state and a notice; the turn goes on.",
    "mcp:required": "A required MCP server that does not start fails the turn before the model is asked.",
    "mcp:failing": "A call whose MCP server crashes or hangs is a failed item, within its bound; the turn goes on.",
    "mcp:slow": "An MCP server is waited for as long as it may take to start.",
    "mcp:denied": "A denied tool of an MCP server cannot be called.",
    "tools:default": "A turn of a user has Alive's own tools, and they answer the same with every provider.",
    "tools:secrets": "Alive's tools hold no secret of the user's or the product's where a gateway stands.",
    "tools:rules": "Alive's tools are replaced by a server of the same name, and denied like any other.",
    "tools:read-only": "A turn that may only read has none of Alive's tools that change something.",
    "tools:crash": "A tool whose server dies has failed, and the turn goes on.",
    "tools:timeout": "A tool that takes longer than it may has failed, and the turn goes on.",
    "tools:question": "What a tool asks the user becomes an approval, or the provider says that it cannot.",
    "tools:files": "Alive's tools for files are offered where the agent's own are switched off.",
    "session:resume": "A resumed session has its memory: the model is sent the earlier turns.",
    "session:isolated": "A session is not found in another workspace.",
    "session:ephemeral": "Nothing of an ephemeral turn is kept, and its session cannot be resumed.",
    "session:busy": "A session takes one turn at a time.",
    "session:list": "Sessions are listed latest first, in pages, and described one by one.",
    "session:transcript": "A transcript has the items of every turn as they were streamed, in pages.",
    "session:fork": "A fork has the memory and transcript of its original up to where it was forked.",
    "session:delete": "A deleted session leaves nothing with the vendor or the service; its forks go on.",
    "session:lost": "A session that the vendor lost or cannot read fails its turn, each by its own reason.",
    "session:handover": "What was said and done with another provider reaches the model, once, with the next answer.",
    "session:switch": "A session goes to another provider and back; each is told what it has not seen, and no more.",
    "session:restart": "Turns and sessions outlive the service: a turn that ran fails as crashed, no event is lost.",
    "item:content": "An item that was cut in its event can be read whole.",
    "interrupt:streaming": "An interrupt while the model speaks ends the turn, and the session takes the next one.",
    "interrupt:command": "An interrupt while a command runs ends the turn and the command.",
    "interrupt:tool": "An interrupt while an MCP server works ends the turn and the server.",
    "interrupt:starting": "An interrupt while the agent starts ends the turn before the model is asked.",
    "interrupt:stalled": "An interrupt while the model has not begun to answer ends the turn.",
    "interrupt:retrying": "An interrupt while the CLI waits to ask the model again ends the turn.",
    "end:no-process": "When a turn has ended no process of it is left, daemons included.",
    "end:crash": "A CLI that is killed fails its turn as crashed, and the session takes the next turn.",
    "warm:reuse": "In a box a session's next turn has the CLI of the one before, its memory, and events of its own.",
    "warm:fresh": "What is fixed when a CLI starts is never inherited: a turn that differs in it has a fresh CLI.",
    "warm:trace": "Where code ran beside its CLI, nothing of a turn's box is left for the next turn.",
    "warm:crash": "A CLI or an MCP server that dies between turns is replaced, and the session goes on.",
    "warm:ahead": "Asked to, a provider starts a session's CLI ahead of its next turn, in a box of its own.",
    "permission:plan": "PLAN reads and changes nothing.",
    "approval:command": "ASK asks before every command, with its line and directory; what is denied does not run.",
    "approval:file-change": "ASK asks before files change, with a diff; ACCEPT_EDITS does not ask for the workspace's.",
    "approval:tool": "ASK asks before tools of MCP servers that are not read-only, with their arguments.",
    "approval:once": "What is allowed runs once, and within the sandbox.",
    "approval:escalation": "A command that is to run outside of the CLI's own sandbox is asked for, with its reason.",
    "approval:session": "What is allowed for the session is not asked again in it; something else is.",
    "approval:interrupt": "A pending approval holds up neither an interrupt nor another turn, and falls with its turn.",
    "approval:timeout": "An approval that nobody answers counts as denied.",
    "approval:changed": "A command is run with changed input where the provider can; elsewhere the answer is refused.",
    "approval:question": "A question to the user is asked with its options, and the answer reaches the model.",
    "approval:elicitation": "What an MCP server asks the user is asked with its schema; the server gets the answer.",
    "approval:policy": "Each policy means the same for every provider: what runs, what is asked, what is refused.",
    "approval:answer": "An answer that does not fit, comes twice or names nothing is refused, and changes nothing.",
    "steer": "Input added to a running turn reaches the model in that turn, or the provider says that it cannot.",
    "workspace:untrusted": "Nothing in a workspace configures the agent.",
    "workspace:instructions": "Instruction files reach the agent only where the workspace's settings say so.",
    "environment:allow-list": "A command sees no variable of the service.",
    "secret:argv": "The key is in no process's arguments.",
    "failure:reason": "An error of the vendor's API fails the turn with the right reason, within a bound.",
    "failure:cut": "An answer that the model's limit cuts completes with that reason; a refusal fails as refused.",
    "failure:silence": "A model that falls silent fails the turn within the bounds of the CLI.",
    "failure:retry-after": "How long a vendor asks to wait is said, where its CLI tells it.",
    "failure:retry": "An error that passes is retried, with a notice, and the turn completes.",
    "option:model": "Model and effort reach the model; an effort the model does not offer is refused.",
    "option:system-prompt": "A system prompt is appended or replaces the vendor's.",
    "option:output-schema": "The final answer satisfies the output schema, or the turn fails and its text is kept.",
    "option:image": "Images reach the model, by value or by path.",
    "option:max-turns": "max_turns bounds the requests to the model.",
    "option:tools": "Only allowed tools exist, and no denied one; a rule that names no tool is refused.",
    "option:sandbox": "A sandbox keeps commands from writing where they may not, or is refused by name.",
    "option:network": "A command reaches the network only where it may, or the option is refused by name.",
    "option:web-search": "The model can search the web only where it may, or the option is refused by name.",
    "option:deadline": "A turn that reaches its deadline, or whose agent is silent for too long, fails by that reason.",
    "option:max-tokens": "max_tokens bounds the tokens of a turn.",
    "option:max-money": "max_micro_usd bounds what a turn costs.",
    "projection": "Events of every provider project onto the same messages of Claude Code's front ends.",
    "readiness:cli": "Without a CLI that runs the provider is not ready, says why, and starts nothing.",
    "readiness:key": "Without a key the provider is not ready, says why, and starts nothing.",
    "capability:complete": "Every option that is refused is listed as a capability that is not there.",
}

EXCLUDED_BY = {
    "item:web-search": "permissions.web_search",
    **dict.fromkeys(("warm:reuse", "warm:fresh", "warm:crash", "warm:ahead"), "warm_sessions"),
}
"""The capability without which a provider does not owe a requirement: it declares that it is unsupported, and why."""


def requirement(requirement_id: str) -> Callable[[Test], Test]:
    """Tie a test to the requirement it proves."""
    if requirement_id not in REQUIREMENTS:
        raise KeyError(f"there is no requirement {requirement_id!r}")

    def tie(test: Test) -> Test:
        test.__dict__.setdefault("requirements", []).append(requirement_id)
        return test

    return tie
