"""What every turn owes its callers, shown on a scripted provider over a real socket."""

import asyncio
import gc
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from alive.agent.v1 import agent_service_pb2, error_pb2, event_pb2, item_pb2, options_pb2
from alive_kit import kept
from alive_kit.errors import TurnFailure
from alive_kit.failures import failure
from alive_kit.provider import TurnSpec
from alive_kit.resume import Resume
from alive_kit.testing.fakes import (
    FakeAgent,
    FakeProvider,
    answers,
    delta,
    ignores_interrupt,
    message_completed,
    message_started,
    started,
    waits_for_interrupt,
)
from alive_kit.testing.harness import collect, serving
from alive_kit.testing.memory import cycles_stay
from alive_kit.turn import LiveTurn


def kinds(events: list[event_pb2.Event]) -> list[str]:
    """Return the kind of each event."""
    return [str(event.WhichOneof("kind")) for event in events]


async def test_turn_is_numbered_from_one_without_gaps_and_ends_with_one_terminal(directory: Path) -> None:
    """A turn is started, says its input, streams its items and ends once."""
    async with serving(FakeProvider(), directory) as caller:
        events = await caller.run("hello", turn_id="t1", session_id="")

    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert kinds(events) == [
        "turn_started", "item_started", "item_completed",
        "item_started", "item_delta", "item_completed", "usage_updated", "turn_completed",
    ]  # fmt: skip
    assert {(event.turn_id, event.provider_id) for event in events} == {("t1", "fake")}
    assert len({event.session_id for event in events}) == 1
    assert events[1].item_started.item.message == item_pb2.MessageItem(role=item_pb2.ROLE_USER, text="hello")
    assert events[-1].turn_completed.usage.input_tokens == 10


async def test_repeating_a_start_reattaches_and_starts_nothing(directory: Path) -> None:
    """The same turn id and body replay the same events; the agent ran once."""
    provider = FakeProvider()
    async with serving(provider, directory) as caller:
        first = await caller.run("hello", turn_id="t1")
        second = await caller.run("hello", turn_id="t1")

    assert first == second
    assert len(provider.agents) == 1


async def test_a_turn_id_used_with_another_body_is_refused(directory: Path) -> None:
    """ALREADY_EXISTS, and nothing runs."""
    provider = FakeProvider()
    async with serving(provider, directory) as caller:
        await caller.run("hello", turn_id="t1")
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await caller.run("something else", turn_id="t1")

    assert refusal.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert len(provider.agents) == 1


async def test_watching_from_a_seq_replays_the_rest_and_follows_live(directory: Path) -> None:
    """A watcher in mid-turn sees every later event once, in order."""
    provider = FakeProvider({"wait": [started(), message_started(), delta("a"), waits_for_interrupt]})
    async with serving(provider, directory) as caller:
        call = caller.start("wait", turn_id="t1")
        await call.read()
        watching = asyncio.create_task(caller.watch("t1", after_seq=2))
        await caller.interrupt("t1")
        watched = await watching
        replayed = await caller.watch("t1")

    assert watched == replayed[2:]
    assert kinds(replayed)[-1] == "turn_interrupted"


async def test_an_interrupt_ends_the_turn_and_closes_what_is_open(directory: Path) -> None:
    """Open items are completed as interrupted with the text that was shown; the agent is closed when it returns."""
    provider = FakeProvider({"wait": [started(), message_started(), delta("par"), delta("tial"), waits_for_interrupt]})
    async with serving(provider, directory) as caller:
        call = caller.start("wait", turn_id="t1")
        await call.read()
        result = await caller.interrupt("t1", "enough")
        assert provider.agents[0].closed.is_set()
        again = await caller.interrupt("t1")
        events = await caller.watch("t1")

    assert (result, again) == (
        agent_service_pb2.INTERRUPT_RESULT_INTERRUPTED,
        agent_service_pb2.INTERRUPT_RESULT_ALREADY_ENDED,
    )
    item = events[-2].item_completed.item
    assert (item.status, item.message.text) == (item_pb2.ITEM_STATUS_INTERRUPTED, "partial")
    assert events[-1].turn_interrupted.reason == "enough"
    assert events[-1].turn_interrupted.interrupted_by == event_pb2.INTERRUPTED_BY_CALLER


async def test_an_agent_that_ignores_the_interrupt_is_ended(directory: Path) -> None:
    """Nothing an agent does keeps a turn from ending."""
    provider = FakeProvider({"deaf": [started(), ignores_interrupt]})
    async with serving(provider, directory) as caller:
        call = caller.start("deaf", turn_id="t1")
        await call.read()
        async with asyncio.timeout(5):
            await caller.interrupt("t1")

    assert provider.agents[0].closed.is_set()


async def test_an_interrupt_before_its_turn_is_kept(directory: Path) -> None:
    """The turn that arrives later ends at once, as interrupted."""
    provider = FakeProvider({"wait": [started(), waits_for_interrupt]})
    async with serving(provider, directory) as caller:
        result = await caller.interrupt("t1", "too soon")
        events = await caller.run("wait", turn_id="t1")

    assert result == agent_service_pb2.INTERRUPT_RESULT_KEPT
    assert kinds(events)[-1] == "turn_interrupted"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([started()], error_pb2.FAILURE_REASON_CRASHED),
        ([started(), ValueError("defect")], error_pb2.FAILURE_REASON_INTERNAL),
        (
            [started(), TurnFailure(error_pb2.TurnError(reason=error_pb2.FAILURE_REASON_RATE_LIMIT, message="Wait."))],
            error_pb2.FAILURE_REASON_RATE_LIMIT,
        ),
        ([TurnFailure(error_pb2.TurnError(reason=error_pb2.FAILURE_REASON_SPAWN))], error_pb2.FAILURE_REASON_SPAWN),
    ],
    ids=["success without an item", "defect", "vendor failure", "failure before the start"],
)
async def test_a_turn_that_goes_wrong_fails_with_its_reason(
    directory: Path, script: list[event_pb2.Event | Exception], reason: "error_pb2.FailureReason.ValueType"
) -> None:
    """The stream ends with status OK and one TurnFailed; the session takes the next turn."""
    async with serving(FakeProvider({"bad": script}), directory) as caller:
        events = await caller.run("bad", turn_id="t1")
        after = await caller.run("hello", session_id=events[0].session_id)

    assert kinds(events).count("turn_failed") == 1
    assert events[-1].turn_failed.error.reason == reason
    assert kinds(after)[-1] == "turn_completed"


async def test_a_deadline_ends_the_turn(directory: Path) -> None:
    """The request's deadline counts from when the turn runs."""
    limits = options_pb2.Limits(deadline=Duration(nanos=50_000_000))
    async with serving(FakeProvider({"wait": [started(), waits_for_interrupt]}), directory) as caller:
        events = await caller.run("wait", limits=limits)

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_TIMEOUT


@pytest.mark.parametrize("nano_usd", [500_001, None])
async def test_a_budget_of_money_ends_the_turn(directory: Path, nano_usd: int | None) -> None:
    """When it is spent, and when what was spent is not known; up to it the turn goes on."""
    spent = [event_pb2.Event(usage_updated=event_pb2.UsageUpdated()) for _ in range(2)]
    spent[0].usage_updated.usage.cost.nano_usd = 500_000
    if nano_usd:
        spent[1].usage_updated.usage.cost.nano_usd = nano_usd
    script = [started(), spent[0], message_started(), delta("Still here."), spent[1], waits_for_interrupt]
    async with serving(FakeProvider({"spend": script}), directory) as caller:
        events = await caller.run("spend", limits=options_pb2.Limits(max_micro_usd=500))

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_BUDGET
    assert "item_delta" in kinds(events)


async def test_a_silent_agent_is_ended(directory: Path) -> None:
    """The idle timeout counts from the last event."""
    limits = options_pb2.Limits(idle_timeout=Duration(nanos=50_000_000))
    async with serving(FakeProvider({"wait": [started(), waits_for_interrupt]}), directory) as caller:
        events = await caller.run("wait", limits=limits)

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_IDLE_TIMEOUT


async def test_two_turns_at_once_in_one_session_are_refused(directory: Path) -> None:
    """FAILED_PRECONDITION names the turn that runs."""
    provider = FakeProvider({"wait": [started(), waits_for_interrupt]})
    async with serving(provider, directory) as caller:
        call = caller.start("wait", turn_id="t1")
        session_id = (await call.read()).events[0].session_id
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await caller.run("hello", session_id=session_id)
        await caller.interrupt("t1")

    assert refusal.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "t1" in str(refusal.value.details())


@pytest.mark.parametrize("is_settled", [False, True])
async def test_a_session_of_which_the_vendor_has_nothing_begins_anew(directory: Path, *, is_settled: bool) -> None:
    """Told what was said, where its only turn crashed; one that has completed a turn is lost, and says so."""
    crash = failure(error_pb2.FAILURE_REASON_CRASHED)
    provider = FakeProvider({"first": [started(), message_started(), crash]})
    async with serving(provider, directory) as caller:
        before = await caller.run("hello" if is_settled else "first")
        session_id = before[0].session_id
        provider.has_lost_sessions = True
        events = await caller.run("again", session_id=session_id)

    codes = [event.notice.code for event in events if event.HasField("notice")]
    if is_settled:
        assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_SESSION_NOT_FOUND
        assert codes == []
    else:
        assert events[-1].HasField("turn_completed")
        assert codes == ["session_begun_anew"]
        assert provider.specs[-1].resume is None
        assert [item.message.text for item in provider.specs[-1].request.history.items][:1] == ["first"]


async def test_a_session_is_resumed_by_the_vendors_own_id(directory: Path) -> None:
    """The next turn of a session gets what the agent asked to remember."""
    provider = FakeProvider()
    async with serving(provider, directory) as caller:
        session_id = (await caller.run("hello"))[0].session_id
        await caller.run("hello", session_id=session_id)

    assert [spec.resume for spec in provider.specs] == [None, Resume(native_session=f"native-{session_id}")]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (options_pb2.ON_DISCONNECT_INTERRUPT, "turn_interrupted"),
        (options_pb2.ON_DISCONNECT_DETACH, "turn_completed"),
    ],
)
async def test_a_caller_that_goes_away_has_the_effect_it_asked_for(
    directory: Path, policy: "options_pb2.OnDisconnect.ValueType", expected: str
) -> None:
    """INTERRUPT ends the turn at once; DETACH lets it run to its end."""
    gate = asyncio.Event()

    async def gated(agent: object) -> None:
        interrupted = agent.interrupted.wait()  # type: ignore[attr-defined]
        waits = {asyncio.ensure_future(interrupted), asyncio.ensure_future(gate.wait())}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)

    provider = FakeProvider({"gated": [started(), message_started(), gated, message_completed("done")]})
    async with serving(provider, directory) as caller:
        call = caller.start("gated", turn_id="t1", delivery=options_pb2.Delivery(on_disconnect=policy))
        await call.read()
        call.cancel()
        if expected == "turn_completed":
            gate.set()
        async with asyncio.timeout(5):
            events = await caller.watch("t1")

    assert kinds(events)[-1] == expected


async def test_what_breaks_the_grammar_becomes_a_notice(directory: Path) -> None:
    """A delta for an item that is not open never reaches a caller as such."""
    script = [started(), delta("lost"), *answers("Hello.")[1:]]
    async with serving(FakeProvider({"odd": script}), directory) as caller:
        events = await caller.run("odd")

    assert [event.notice.code for event in events if event.HasField("notice")] == ["stream_defect"]
    assert kinds(events)[-1] == "turn_completed"


async def test_deltas_can_be_left_out_without_a_gap(directory: Path) -> None:
    """Without deltas the numbering is dense and the completed item has the text."""
    quiet = options_pb2.Delivery(include_deltas=False)
    async with serving(FakeProvider(), directory) as caller:
        events = await caller.run("hello", delivery=quiet)

    assert "item_delta" not in kinds(events)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_a_large_item_is_cut_and_says_how_much_is_missing(directory: Path) -> None:
    """No event is over 256 KiB."""
    text = "x" * 600_000
    script = [started(), message_started(), delta(text), message_completed(text)]
    async with serving(FakeProvider({"large": script}), directory) as caller:
        events = await caller.run("large")

    assert max(event.ByteSize() for event in events) <= 256 << 10
    assert "".join(event.item_delta.text for event in events) == text
    item = next(event.item_completed.item for event in events if event.item_completed.item.item_id == "message-1")
    assert len(item.message.text) + item.omitted_bytes == pytest.approx(len(text), abs=16)


async def test_validate_only_starts_nothing(directory: Path) -> None:
    """The stream closes with OK and no event; an option that is not honoured is still refused by name."""
    provider = FakeProvider()
    more = options_pb2.Permissions(extra_directories=["other"])
    async with serving(provider, directory) as caller:
        events = await caller.run("hello", validate_only=True)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await caller.run("hello", validate_only=True, permissions=more)

    assert events == []
    assert provider.agents == []
    assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "permissions.extra_directories" in str(refusal.value.details())


async def test_a_watch_outside_what_is_kept_is_out_of_range(directory: Path) -> None:
    """The refusal says what is kept."""
    async with serving(FakeProvider(), directory) as caller:
        events = await caller.run("hello", turn_id="t1")
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await caller.watch("t1", after_seq=1000)

    assert refusal.value.code() == grpc.StatusCode.OUT_OF_RANGE
    assert f"1 to {len(events)}" in str(refusal.value.details())


async def test_going_down_ends_running_turns_as_shutting_down(directory: Path) -> None:
    """A drain ends what does not end in time; the stream still gets its terminal event."""
    async with serving(FakeProvider({"wait": [started(), waits_for_interrupt]}), directory) as caller:
        call = caller.start("wait", turn_id="t1")
        first = await call.read()
        assert caller.service
        await caller.service.stop(0.0)
        rest = await collect(call)

    assert kinds([*first.events, *rest])[0] == "turn_started"
    assert rest[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_SHUTTING_DOWN
    assert rest[-1].turn_failed.error.retryable


async def test_memory_holds_few_ended_turns(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal has the rest, at once and without a search for cycles; of an ephemeral turn nobody else has them."""
    monkeypatch.setattr(kept, "KEPT_TURNS", 2)
    with cycles_stay():
        async with serving(FakeProvider(), directory) as caller:
            said = {"held-brief": await caller.run("go", turn_id="held-brief", ephemeral=True)}
            for number in range(6):
                said[f"held-{number}"] = await caller.run("go", turn_id=f"held-{number}")
            held = {one.spec.request.turn_id for one in gc.get_objects() if isinstance(one, LiveTurn)}

            assert held & said.keys() == {"held-brief", "held-4", "held-5"}
            for turn_id, events in said.items():
                assert await caller.watch(turn_id) == events


async def test_an_agent_that_does_not_close_changes_nothing_of_how_its_turn_ended(directory: Path) -> None:
    """It takes longer than it may be silent, and fails then."""

    async def stuck() -> None:
        async with asyncio.timeout(0.3):
            await asyncio.Event().wait()

    class Stuck(FakeProvider):
        async def start(self, spec: TurnSpec) -> FakeAgent:
            agent = await super().start(spec)
            agent.close = stuck  # type: ignore[method-assign]
            return agent

    async with serving(Stuck(), directory) as caller:
        events = await caller.run("hello", limits=options_pb2.Limits(idle_timeout=Duration(nanos=100_000_000)))

    assert events[-1].HasField("turn_completed")
