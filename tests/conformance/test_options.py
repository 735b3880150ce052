"""Options of a request reach the agent, or are refused by name."""

import asyncio
import base64
import json

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from alive.agent.v1 import error_pb2, event_pb2, options_pb2, provider_pb2
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import Fault, RawTool, Reply, RunCommand, TokenUsage

from .conftest import Subject, said

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
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
    """The provider's second model, with its first effort."""
    info = subject.caller.service.info
    model = next(model for model in info.models if model.default)
    agent = options_pb2.AgentOptions(model=model.model, effort=model.efforts[0])
    events = await subject.caller.run(subject.script("model", Reply(text="Yes.")), agent=agent)
    body = subject.bodies("model")[-1]

    assert events[0].turn_started.model == body["model"] == model.model
    assert f'"effort": "{model.efforts[0]}"' in json.dumps(body)


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


@requirement("option:output-schema")
async def test_the_answer_satisfies_the_output_schema_or_the_turn_fails(subject: Subject) -> None:
    """One answer is right, one is not JSON at all."""
    agent = options_pb2.AgentOptions(output_schema=SCHEMA)
    right = await subject.caller.run(structured(subject, "right", '{"n": 7}'), agent=agent)
    wrong = await subject.caller.run(subject.script("wrong", Reply(text="Seven.", repeat=9)), agent=agent)

    assert json.loads(right[-1].turn_completed.structured_output) == {"n": 7}
    assert wrong[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_OUTPUT_INVALID
    assert said(wrong) == "Seven."


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


@requirement("option:deadline")
@pytest.mark.parametrize("limit", ["deadline", "idle_timeout"])
async def test_a_turn_ends_at_its_deadline_and_in_silence(subject: Subject, limit: str) -> None:
    """The model stalls after a few words, which are kept."""
    reply = Reply(text="This never ends.", chunk=4, fault=Fault(stall_after=2))
    limits = options_pb2.Limits(**{limit: Duration(seconds=4)})  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        events = await subject.caller.run(subject.script(limit, reply), limits=limits)
    reasons = {"deadline": error_pb2.FAILURE_REASON_TIMEOUT, "idle_timeout": error_pb2.FAILURE_REASON_IDLE_TIMEOUT}

    assert events[-1].turn_failed.error.reason == reasons[limit]
    assert said(events) == "This nev"


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
