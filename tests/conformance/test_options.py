"""Options of a request reach the agent, or are refused by name."""

import asyncio
import base64
import json

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from alive.agent.v1 import error_pb2, event_pb2, item_pb2, options_pb2, provider_pb2
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import CallTool, Fault, RawTool, Reply, RunCommand, TokenUsage

from .conftest import Subject, items, said
from .test_mcp import notes

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
COMPLETED = item_pb2.ITEM_STATUS_COMPLETED
SCHEMA = (
    '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}'
)


async def refused(subject: Subject, **fields: object) -> grpc.aio.AioRpcError:
    """Return how a request is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await subject.caller.run("go", **fields)
    return refusal.value


@requirement("option:model")
async def test_model_and_effort_reach_the_model(subject: Subject) -> None:
    """Every model that is listed, with the last of its efforts."""
    for model in subject.caller.service.info.models:
        name, effort = f"model-{model.model}", model.efforts[-1]
        agent = options_pb2.AgentOptions(model=model.model, effort=effort)
        events = await subject.caller.run(subject.script(name, Reply(text="Yes.")), agent=agent)
        body = subject.bodies(name)[-1]

        assert next(event.turn_started for event in events if event.HasField("turn_started")).model == model.model
        assert body["model"] == model.model
        assert f'"effort": "{effort}"' in json.dumps(body)


@requirement("option:model")
async def test_every_model_is_described(subject: Subject) -> None:
    """What it takes in, its efforts and its class of price; one of them is the default."""
    models = subject.caller.service.info.models

    assert [model.default for model in models].count(True) == 1
    for model in models:
        assert model.context_window > 100_000
        assert model.efforts
        assert model.price_tier in {"low", "standard", "high"}


@requirement("option:model")
async def test_an_effort_the_model_does_not_offer_is_refused(subject: Subject) -> None:
    """Nothing is sent to the vendor."""
    error = await refused(subject, agent=options_pb2.AgentOptions(effort="colossal"))

    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "agent.effort" in (error.details() or "")


@requirement("option:system-prompt")
async def test_a_system_prompt_is_appended_or_replaces(subject: Subject) -> None:
    """The vendor's own instructions stay with the one and go with the other."""
    append = options_pb2.AgentOptions(system_prompt=options_pb2.SystemPrompt(append="Be a heron."))
    replace = options_pb2.AgentOptions(system_prompt=options_pb2.SystemPrompt(replace="Be a stork."))
    await subject.caller.run(subject.script("appended", Reply(text="Yes.")), agent=append)
    await subject.caller.run(subject.script("replaced", Reply(text="Yes.")), agent=replace)

    assert "Be a heron." in subject.sent("appended")
    assert "Be a stork." in subject.sent("replaced")
    assert len(subject.sent("replaced")) < len(subject.sent("appended"))


@requirement("option:system-prompt")
async def test_a_resumed_session_is_instructed_anew(subject: Subject) -> None:
    """A new text replaces the vendor's; one to be appended too, where the vendor does not keep the first."""
    prompt = subject.script("renewed", *[Reply(text="Yes.")] * 3)
    session_id = (await subject.caller.run(prompt))[0].session_id
    replace = options_pb2.AgentOptions(system_prompt=options_pb2.SystemPrompt(replace="Be a crane."))
    append = options_pb2.AgentOptions(system_prompt=options_pb2.SystemPrompt(append="Be an ibis."))
    await subject.caller.run(prompt, session_id=session_id, agent=replace)
    replaced = json.dumps(subject.bodies("renewed")[-1])
    if subject.name == "codex":
        error = await refused(subject, session_id=session_id, agent=append)
        assert "agent.system_prompt.append" in (error.details() or "")
    else:
        await subject.caller.run(prompt, session_id=session_id, agent=append)
        assert "Be an ibis." in json.dumps(subject.bodies("renewed")[-1])

    assert "Be a crane." in replaced


@requirement("option:output-schema")
async def test_the_answer_satisfies_the_output_schema_or_the_turn_fails(subject: Subject) -> None:
    """One answer is right, one is not JSON at all, one is JSON that the schema does not allow."""
    agent = options_pb2.AgentOptions(output_schema=SCHEMA)
    right = await subject.caller.run(structured(subject, "right", '{"n": 7}'), agent=agent)
    wrong = await subject.caller.run(subject.script("wrong", Reply(text="Seven.", repeat=9)), agent=agent)

    other = await subject.caller.run(structured(subject, "other", '{"m": 7}'), agent=agent)

    assert json.loads(right[-1].turn_completed.structured_output) == {"n": 7}
    assert other[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_OUTPUT_INVALID
    assert wrong[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_OUTPUT_INVALID
    assert said(wrong) == "Seven."


@requirement("option:output-schema")
async def test_a_turn_that_is_cut_has_no_valid_output(subject: Subject) -> None:
    """What was said before max_turns is no answer by the schema."""
    agent, limits = options_pb2.AgentOptions(output_schema=SCHEMA), options_pb2.Limits(max_turns=1)
    step = Reply(text="First.", actions=[RunCommand(command="true")])
    events = await subject.caller.run(subject.script("cut-output", step, step), agent=agent, limits=limits)

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_OUTPUT_INVALID
    assert said(events) == "First."


def structured(subject: Subject, name: str, answer: str) -> str:
    """Return the prompt for an answer as the vendor's model gives it: as text, or by a tool where there is one."""
    if subject.name == "claude":
        call = Reply(actions=[RawTool(name="StructuredOutput", arguments=json.loads(answer))])
        return subject.script(name, call, Reply(text="Done."))
    return subject.script(name, Reply(text=answer))


@requirement("option:image")
async def test_images_reach_the_model(subject: Subject) -> None:
    """One by value, one from the workspace."""
    (subject.workspace("images") / "dot.png").write_bytes(PNG)
    prompt = subject.script("image", Reply(text="Seen."))
    parts = [
        options_pb2.InputPart(text=prompt),
        options_pb2.InputPart(image=options_pb2.ImageInput(data=PNG)),
        options_pb2.InputPart(image=options_pb2.ImageInput(path="dot.png")),
    ]
    await subject.caller.run(prompt, input=parts, workspace_id="images")

    assert subject.sent("image").count("image/png") >= 2


@requirement("option:max-turns")
async def test_max_turns_bounds_the_requests_to_the_model(subject: Subject) -> None:
    """The model would go on for ever."""
    replies = [Reply(text=f"Step {step}.", actions=[RunCommand(command="true")]) for step in range(9)]
    limits = options_pb2.Limits(max_turns=2)
    events = await subject.caller.run(subject.script("steps", *replies), limits=limits)

    assert events[-1].turn_completed.stop_reason == event_pb2.STOP_REASON_MAX_TURNS
    assert len(subject.bodies("steps")) <= 3


@requirement("option:max-tokens")
async def test_max_tokens_bounds_the_tokens_of_a_turn(subject: Subject) -> None:
    """The first request already uses more."""
    replies = [Reply(actions=[RunCommand(command="true")], usage=TokenUsage(input=900, output=200))] * 9
    events = await subject.caller.run(subject.script("budget", *replies), limits=options_pb2.Limits(max_tokens=1000))

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_BUDGET
    assert len(subject.bodies("budget")) <= 2


def offered(subject: Subject, name: str) -> set[str]:
    """Return the tools that the model was offered with a script's first request."""
    return {str(tool.get("name") or tool.get("type")) for tool in subject.bodies(name)[0].get("tools", [])}


@requirement("option:tools")
async def test_only_allowed_tools_exist(subject: Subject) -> None:
    """One tool of an MCP server is allowed, in a session that had all of them; the model tries others all the same."""
    workspace = subject.workspace("allowed-tools")
    prompt = subject.script(
        "allowed-tools",
        Reply(text="All."),
        Reply(actions=[RunCommand(command="touch made.txt")]),
        Reply(actions=[CallTool(server="notes", tool="environment")]),
        Reply(actions=[CallTool(server="notes", tool="add", arguments={"a": 1, "b": 41})]),
        Reply(text="Done."),
    )
    first = await subject.caller.run(prompt, workspace_id="allowed-tools")
    permissions = options_pb2.Permissions(tools=options_pb2.ToolRules(allowed=["mcp__notes__add"]))
    fields = {"workspace_id": "allowed-tools", "session_id": first[0].session_id, "mcp_servers": [notes(subject)]}
    events = await subject.caller.run(prompt, permissions=permissions, **fields)

    assert events[-1].HasField("turn_completed")
    assert list(workspace.iterdir()) == []
    assert "DECLARED" not in subject.sent("allowed-tools")
    assert [item.tool_call.tool for item in items(events, "tool_call") if item.status == COMPLETED] == ["add"]


@requirement("option:tools")
async def test_a_denied_tool_does_not_exist(subject: Subject) -> None:
    """The tools that run commands, by the vendor's names of them."""
    workspace = subject.workspace("denied-tools")
    denied = {
        "claude": ["Bash"],
        "codex": ["exec_command", "write_stdin", "apply_patch", "view_image"],
        "reference": ["run_command"],
    }[subject.name]
    prompt = subject.script("denied-tools", Reply(actions=[RunCommand(command="touch made.txt")]), Reply(text="Done."))
    permissions = options_pb2.Permissions(tools=options_pb2.ToolRules(denied=denied))
    events = await subject.caller.run(prompt, workspace_id="denied-tools", permissions=permissions)

    assert events[-1].HasField("turn_completed")
    assert offered(subject, "denied-tools").isdisjoint(denied)
    assert list(workspace.iterdir()) == []


@requirement("option:tools")
@pytest.mark.parametrize("name", ["Unheard", "mcp__unheard__of"])
async def test_a_rule_that_names_no_tool_is_refused(subject: Subject, name: str) -> None:
    """A mistake in a rule would leave a tool where it may not be."""
    for rules in (options_pb2.ToolRules(allowed=[name]), options_pb2.ToolRules(denied=[name])):
        error = await refused(subject, permissions=options_pb2.Permissions(tools=rules))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert name in (error.details() or "")


def has(subject: Subject, capability: str) -> bool:
    """Whether the provider says that it can do something at all."""
    support = {entry.name: entry.support for entry in subject.caller.service.info.capabilities}
    return support[capability] != provider_pb2.CAPABILITY_SUPPORT_UNSUPPORTED


@requirement("option:sandbox")
@pytest.mark.parametrize("name", ["READ_ONLY", "WORKSPACE_WRITE", "FULL_ACCESS"])
async def test_a_sandbox_bounds_where_commands_write(subject: Subject, name: str) -> None:
    """A file in the workspace and one beside it, which does not even exist in a box."""
    workspace, beside = subject.workspace(f"sandbox-{name.lower().replace('_', '-')}"), subject.directory / name
    script = f"sandbox-{name}"
    touch = Reply(actions=[RunCommand(command=f"touch made.txt; touch {beside}; echo tried")])
    prompt = subject.script(script, touch, Reply(text="Tried."))
    permissions = options_pb2.Permissions(sandbox=options_pb2.Sandbox.Value(f"SANDBOX_{name}"))
    if not has(subject, f"permissions.sandbox.{name}"):
        error = await refused(subject, permissions=permissions)
        assert "permissions.sandbox" in (error.details() or "")
        return
    events = await subject.caller.run(prompt, workspace_id=workspace.name, permissions=permissions)

    assert events[0].turn_started.sandbox == permissions.sandbox
    assert "tried" in items(events, "command")[0].command.output
    assert (workspace / "made.txt").exists() == (name != "READ_ONLY")
    assert beside.exists() == (name == "FULL_ACCESS" and not subject.boxed)


@requirement("option:network")
@pytest.mark.parametrize("network", [True, False])
async def test_a_command_has_the_network_only_where_it_may(subject: Subject, *, network: bool) -> None:
    """It connects to a port of the host. Where the provider cannot tell, it refuses: without a box or a sandbox."""
    port = subject.model.url.rpartition(":")[2]
    program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('REACHED')"
    reply = Reply(actions=[RunCommand(command=f'python3 -c "{program}"')])
    permissions = options_pb2.Permissions(network=network)
    if subject.boxed if network else not has(subject, "permissions.sandbox.WORKSPACE_WRITE"):
        error = await refused(subject, permissions=permissions)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "permissions.network" in (error.details() or "")
        return
    prompt = subject.script(f"network-{network}", reply, Reply(text="Tried."))
    events = await subject.caller.run(prompt, permissions=permissions)

    assert ("REACHED" in items(events, "command")[0].command.output) == network


@requirement("option:web-search")
@pytest.mark.parametrize("web_search", [True, False])
async def test_the_model_can_search_the_web_only_where_it_may(subject: Subject, *, web_search: bool) -> None:
    """Without the option there is no such tool."""
    permissions = options_pb2.Permissions(web_search=web_search)
    if web_search and not has(subject, "permissions.web_search"):
        error = await refused(subject, permissions=permissions)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "permissions.web_search" in (error.details() or "")
        return
    name = f"web-{web_search}"
    await subject.caller.run(subject.script(name, Reply(text="Yes.")), permissions=permissions)

    assert any("search" in tool.lower() for tool in offered(subject, name)) == web_search


@requirement("option:deadline")
@pytest.mark.parametrize("limit", ["deadline", "idle_timeout"])
async def test_a_turn_ends_at_its_deadline_and_in_silence(subject: Subject, limit: str) -> None:
    """The model stalls after a few words."""
    reply = Reply(text="This never ends.", chunk=4, fault=Fault(stall_after=2))
    limits = options_pb2.Limits(**{limit: Duration(seconds=3)})  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        events = await subject.caller.run(subject.script(limit, reply), limits=limits)
    reasons = {"deadline": error_pb2.FAILURE_REASON_TIMEOUT, "idle_timeout": error_pb2.FAILURE_REASON_IDLE_TIMEOUT}

    assert events[-1].turn_failed.error.reason == reasons[limit]
    assert events[-1].turn_failed.error.retryable


@requirement("capability:complete")
async def test_what_is_refused_is_listed(subject: Subject) -> None:
    """Each refusal's field is the name of a capability, or the beginning of some."""
    capabilities = subject.caller.service.info.capabilities
    names = {
        capability.name
        for capability in capabilities
        if capability.support != provider_pb2.CAPABILITY_SUPPORT_SUPPORTED
    }
    permissions = options_pb2.Permissions(extra_directories=["other"])
    unpriced = {"agent": options_pb2.AgentOptions(model="unheard-of-1"), "limits": options_pb2.Limits(max_micro_usd=1)}
    for fields in (
        {"permissions": permissions},
        unpriced,
        {"agent": options_pb2.AgentOptions(model="unheard-of-1", effort="high")},
        {"permissions": options_pb2.Permissions(tools=options_pb2.ToolRules(allowed=["Unheard"]))},
        {"permissions": options_pb2.Permissions(tools=options_pb2.ToolRules(denied=["mcp__unheard__of"]))},
        {"tool_context": options_pb2.ToolContext(user_id="u")},
    ):
        error = await refused(subject, **fields)
        field = (error.details() or "").split(":")[0]
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert any(name == field or name.startswith(f"{field}.") for name in names)
