"""What turns use, and what that costs, whatever became of them."""

import asyncio
from importlib import import_module

from alive.agent.v1 import error_pb2, event_pb2, options_pb2, session_pb2, usage_pb2
from alive_kit.testing.harness import collect
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import Fault, RawTool, Reply, RunCommand, TokenUsage

from .conftest import DECLARATIONS, Subject, said

COUNTED = TokenUsage(input=1000, cached=600, cache_write=100, output=50, reasoning=30)


def usage_of(events: list[event_pb2.Event]) -> usage_pb2.Usage:
    """Return what a turn used, by its terminal event."""
    last = events[-1]
    used: usage_pb2.Usage = getattr(last, str(last.WhichOneof("kind"))).usage
    return used


def counts(usage: usage_pb2.Usage) -> tuple[int, ...]:
    """Return the tokens of a usage in the order of the contract, and the requests."""
    tokens = (usage.input_tokens, usage.cached_input_tokens, usage.cache_write_tokens)
    return (*tokens, usage.output_tokens, usage.reasoning_tokens, usage.model_requests)


def price_of(subject: Subject, model: str, usage: TokenUsage) -> int:
    """Return what a request costs, by hand and by the provider's table."""
    rates = import_module(f"{DECLARATIONS[subject.name].module}.prices").PRICES.models[model].rates
    fresh = usage.input - usage.cached - usage.cache_write
    cached = usage.cached * rates.cached_input + usage.cache_write * rates.cache_write
    return int(fresh * rates.input + cached + usage.output * rates.output) // 1000


@requirement("turn:usage")
async def test_usage_is_the_turns_own(subject: Subject) -> None:
    """Turns of a session, and of a fork of it, count their own requests each. Source: usage.proto."""
    prompt = subject.script("usage", *[Reply(text="Counted.", usage=COUNTED)] * 3)
    first = await subject.caller.run(prompt)
    session_id = first[0].session_id
    second = await subject.caller.run(prompt, session_id=session_id)
    fork = session_pb2.ForkSessionRequest(workspace_id="demo", session_id=session_id)
    forked = (await subject.caller.stub.ForkSession(fork)).session.session_id
    third = await subject.caller.run(prompt, session_id=forked)
    model = first[0].turn_started.model

    for events in (first, second, third):
        used = usage_of(events)
        assert counts(used) == (1000, 600, 100, 50, 30, 1)
        assert used.cost.nano_usd == price_of(subject, model, COUNTED)
        assert used.cost.price_date
        assert [(part.model, counts(part.usage)) for part in used.models] == [(model, counts(used))]


@requirement("turn:usage")
async def test_a_turn_is_counted_request_by_request(subject: Subject) -> None:
    """After each request there is a sum, and the last one is the turn's."""
    replies = [Reply(actions=[RunCommand(command="true")], usage=COUNTED), Reply(text="Done.", usage=COUNTED)]
    events = await subject.caller.run(subject.script("requests", *replies))
    sums = [event.usage_updated.usage for event in events if event.HasField("usage_updated")]

    assert [total.model_requests for total in sums][:1] == [1]
    assert counts(usage_of(events)) == (2000, 1200, 200, 100, 60, 2)
    assert sums[-1] == usage_of(events)


@requirement("usage:failed")
async def test_a_turn_that_fails_keeps_what_it_used(subject: Subject) -> None:
    """The first request is answered, every other one fails."""
    answered = Reply(actions=[RunCommand(command="true")], usage=COUNTED)
    events = await subject.caller.run(subject.script("failed", answered, Reply(fault=Fault(status=500), repeat=9)))

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_OVERLOADED
    assert counts(usage_of(events)) == (1000, 600, 100, 50, 30, 1)
    assert usage_of(events).cost.nano_usd == price_of(subject, events[0].turn_started.model, COUNTED)


@requirement("usage:failed")
async def test_a_broken_request_counts_what_the_vendor_said_of_it(subject: Subject) -> None:
    """The stream breaks after some text: Anthropic had said what went in, OpenAI says it only at the end."""
    broken = Reply(text="This will be said twice.", chunk=4, gap=0.05, usage=COUNTED, fault=Fault(drop_after=3))
    prompt = subject.script("usage-broken", broken, Reply(text="Said whole.", usage=COUNTED))
    events = await subject.caller.run(prompt)
    used = usage_of(events)

    assert said(events) == "Said whole."
    assert (used.input_tokens, used.model_requests) in {(1000, 1), (2000, 2)}
    assert (used.input_tokens == 2000) == (subject.name == "claude")


@requirement("usage:failed")
async def test_an_interrupted_request_counts_what_the_vendor_said_of_it(subject: Subject) -> None:
    """One request was answered before; later turns of the session count neither again."""
    answered = Reply(actions=[RunCommand(command="true")], usage=COUNTED)
    stalled = Reply(text="This never ends.", chunk=4, usage=COUNTED, fault=Fault(stall_after=2))
    broken = 1000 if subject.name == "claude" else 0
    prompt = subject.script("usage-interrupted", answered, stalled, stalled, Reply(text="Next.", usage=COUNTED))
    first = usage_of(await interrupted(subject, prompt, "usage-1"))
    session_id = (await subject.caller.watch(f"{subject.kind}-usage-1"))[0].session_id
    second = usage_of(await interrupted(subject, prompt, "usage-2", session_id=session_id))
    third = usage_of(await subject.caller.run(prompt, session_id=session_id))

    assert (first.input_tokens, second.input_tokens) == (1000 + broken, broken)
    assert 50 <= first.output_tokens < 100
    assert first.HasField("cost")
    assert counts(third) == (1000, 600, 100, 50, 30, 1)


async def interrupted(subject: Subject, prompt: str, turn: str, **fields: str) -> list[event_pb2.Event]:
    """Run a turn and interrupt it while the model speaks."""
    turn_id = f"{subject.kind}-{turn}"
    call = subject.caller.start(prompt, turn_id=turn_id, **fields)
    events: list[event_pb2.Event] = []
    while not any(event.item_delta.text for event in events):
        events.extend((await call.read()).events)
    async with asyncio.timeout(10):
        await subject.caller.interrupt(turn_id)
        return events + await collect(call)


@requirement("usage:models")
async def test_every_model_of_a_turn_is_counted(subject: Subject) -> None:
    """A subagent works with another model; where there are no subagents, the model is the only one."""
    if subject.name != "claude":
        events = await subject.caller.run(subject.script("models", Reply(text="Alone.", usage=COUNTED)))
        assert [part.model for part in usage_of(events).models] == [events[0].turn_started.model]
        return
    errand = subject.script("errand", Reply(text="Found.", usage=COUNTED, repeat=2))
    call = {"description": "look", "prompt": errand, "subagent_type": "general-purpose", "model": "haiku"}
    lead = Reply(actions=[RawTool(name="Agent", arguments=call)], usage=COUNTED)
    prompt = subject.script("models", *[lead, Reply(text="Done.", usage=COUNTED)] * 2)
    for session_id in ("", (await subject.caller.run(prompt))[0].session_id):
        events = await subject.caller.run(prompt, session_id=session_id)
        used = {part.model: part.usage for part in usage_of(events).models}
        own, other = used["claude-opus-5-5"], used["claude-haiku-5-5"]
        assert counts(own)[:4] == (2000, 1200, 200, 100)
        assert counts(other)[:4] == (1000, 600, 100, 50)
        assert other.cost.nano_usd == price_of(subject, "claude-haiku-5-5", COUNTED)
        assert usage_of(events).cost.nano_usd == own.cost.nano_usd + other.cost.nano_usd


@requirement("usage:cost")
async def test_what_has_no_price_is_not_priced(subject: Subject) -> None:
    """A model that is not listed is passed on; its tokens are counted, and its price is not guessed."""
    agent = options_pb2.AgentOptions(model="unheard-of-1")
    events = await subject.caller.run(subject.script("unpriced", Reply(text="Yes.", usage=COUNTED)), agent=agent)

    assert usage_of(events).input_tokens == 1000
    assert not usage_of(events).HasField("cost")
    assert [part.usage.HasField("cost") for part in usage_of(events).models] == [False]


@requirement("option:max-money")
async def test_max_micro_usd_bounds_what_a_turn_costs(subject: Subject) -> None:
    """The model would go on for ever; the budget is for two requests and a bit."""
    replies = [Reply(actions=[RunCommand(command="true")], usage=COUNTED)] * 9
    default = next(model.model for model in subject.caller.service.info.models if model.default)
    limits = options_pb2.Limits(max_micro_usd=5 * price_of(subject, default, COUNTED) // 2 // 1000)
    events = await subject.caller.run(subject.script("money", *replies), limits=limits)

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_BUDGET
    assert usage_of(events).cost.nano_usd > limits.max_micro_usd * 1000
    assert len(subject.bodies("money")) in {3, 4}
