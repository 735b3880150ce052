"""What goes wrong with the vendor's API, and how a turn tells of it."""

import asyncio
import tempfile
from pathlib import Path

from alive.agent.v1 import error_pb2, event_pb2, item_pb2
from alive_kit.testing.harness import serving
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import Fault, Reply

from .conftest import KEY, Subject, configured, items, kinds, notices, said

BOUND = 30

Reason = error_pb2.FailureReason

Faults = dict[str, tuple[Fault, Reason.ValueType]]

FAULTS: Faults = {
    "wrong-key": (Fault(status=401), Reason.FAILURE_REASON_AUTH),
    "forbidden": (Fault(status=403), Reason.FAILURE_REASON_AUTH),
    "bad-request": (Fault(status=400), Reason.FAILURE_REASON_INVALID_REQUEST),
    "no-money": (Fault(status=402), Reason.FAILURE_REASON_QUOTA),
    "no-model": (Fault(status=404), Reason.FAILURE_REASON_MODEL_UNAVAILABLE),
    "too-large": (Fault(status=413), Reason.FAILURE_REASON_INVALID_REQUEST),
    "rate-limit": (Fault(status=429, headers={"retry-after": "1"}), Reason.FAILURE_REASON_RATE_LIMIT),
    "broken": (Fault(status=500), Reason.FAILURE_REASON_OVERLOADED),
    "unavailable": (Fault(status=503), Reason.FAILURE_REASON_OVERLOADED),
    "slow-gateway": (Fault(status=504), Reason.FAILURE_REASON_NETWORK),
    "overloaded": (Fault(status=529), Reason.FAILURE_REASON_OVERLOADED),
    "dropped": (Fault(drop_after=0), Reason.FAILURE_REASON_NETWORK),
    "dropped-after-headers": (Fault(drop_after=0, answered=True), Reason.FAILURE_REASON_NETWORK),
    "dropped-in-text": (Fault(drop_after=3), Reason.FAILURE_REASON_NETWORK),
}
"""What every provider's API can do wrong."""

ONLY: dict[str, Faults] = {
    "claude": {
        "too-long": (
            Fault(status=400, message="prompt is too long: 250000 tokens > 200000 maximum"),
            Reason.FAILURE_REASON_CONTEXT_WINDOW,
        ),
        "no-credit": (
            Fault(status=400, message="Your credit balance is too low to access the Anthropic API."),
            Reason.FAILURE_REASON_QUOTA,
        ),
        "long-rate-limit": (Fault(status=429, headers={"retry-after": "90"}), Reason.FAILURE_REASON_RATE_LIMIT),
        "error-event": (Fault(error_after=2, code="overloaded_error"), Reason.FAILURE_REASON_OVERLOADED),
    },
    "codex": {
        "too-long": (Fault(status=400, code="context_length_exceeded"), Reason.FAILURE_REASON_CONTEXT_WINDOW),
        "unknown-model": (Fault(status=400, code="model_not_found"), Reason.FAILURE_REASON_MODEL_UNAVAILABLE),
        "used-up": (Fault(status=429, code="usage_limit_reached"), Reason.FAILURE_REASON_QUOTA),
        "no-quota": (Fault(status=429, code="insufficient_quota"), Reason.FAILURE_REASON_QUOTA),
        "said-too-long": (Fault(error_after=0, code="context_length_exceeded"), Reason.FAILURE_REASON_CONTEXT_WINDOW),
        "said-overloaded": (Fault(error_after=0, code="server_is_overloaded"), Reason.FAILURE_REASON_OVERLOADED),
        "said-slow-down": (Fault(error_after=0, code="slow_down"), Reason.FAILURE_REASON_RATE_LIMIT),
        "said-forbidden": (Fault(error_after=0, code="cyber_policy"), Reason.FAILURE_REASON_REFUSED),
        "said-not-included": (Fault(error_after=0, code="usage_not_included"), Reason.FAILURE_REASON_QUOTA),
        "said-unknown": (Fault(error_after=3), Reason.FAILURE_REASON_NETWORK),
    },
    "reference": {
        "error-event": (Fault(error_after=0), Reason.FAILURE_REASON_NETWORK),
        "error-event-in-text": (Fault(error_after=3), Reason.FAILURE_REASON_NETWORK),
    },
}
"""What only one vendor's API says."""

PASSING = {
    Reason.FAILURE_REASON_RATE_LIMIT,
    Reason.FAILURE_REASON_OVERLOADED,
    Reason.FAILURE_REASON_NETWORK,
}
"""Reasons after which the same turn may succeed."""


UNTOLD = {"claude": 6, "codex": 0, "reference": 0}
"""Requests beside those that a CLI tells of: the limit of the capability ``model_retry``."""


async def check(subject: Subject, name: str, fault: Fault, reason: Reason.ValueType) -> error_pb2.TurnError:
    """Have every request fail the same way, and see that the turn tells what happened."""
    reply = Reply(text="This is cut short.", chunk=4, gap=0.02, fault=fault, repeat=40)
    async with asyncio.timeout(BOUND):
        events = await subject.caller.run(subject.script(f"fault-{name}", reply))
    error = events[-1].turn_failed.error
    begun = [event.item_started.item.item_id for event in events if event.item_started.item.HasField("message")][1:]
    retracted = [event.item_retracted.item_id for event in events if event.HasField("item_retracted")]

    assert (name, Reason.Name(error.reason)) == (name, Reason.Name(reason))
    assert error.retryable == (reason in PASSING)
    assert "scripted" not in error.message
    assert "http" not in error.message
    assert error.retries == notices(events).count("model_retry") <= 2
    assert 0 <= len(subject.bodies(f"fault-{name}")) - 1 - error.retries <= UNTOLD[subject.name]
    assert "model_error" in notices(events)
    assert not error.HasField("http_status") or error.http_status == fault.status or fault.error_after >= 0
    assert retracted[: len(begun) - 1] == begun[:-1]  # All but the last attempt's, which is no answer but all there is.
    assert all(item.status == item_pb2.ITEM_STATUS_FAILED for item in items(events, "message"))
    return error


async def check_all(subject: Subject, faults: Faults) -> dict[str, error_pb2.TurnError]:
    """Check every row, a few at a time: most of what they take is waiting."""
    gate, errors = asyncio.Semaphore(3), {}

    async def one(name: str, fault: Fault, reason: Reason.ValueType) -> None:
        async with gate:
            errors[name] = await check(subject, name, fault, reason)

    async with asyncio.TaskGroup() as group:
        for name, row in faults.items():
            group.create_task(one(name, *row), name=name)
    return errors


@requirement("failure:reason")
async def test_an_error_of_the_api_fails_the_turn_with_its_reason(subject: Subject) -> None:
    """The API answers every request with the same error. The sentence for the user holds no vendor text."""
    errors = await check_all(subject, FAULTS)

    assert {name: error.http_status for name, error in errors.items()} == {
        name: fault.status for name, (fault, _) in FAULTS.items()
    }


@requirement("failure:reason")
async def test_an_error_that_only_one_api_knows_has_its_reason(subject: Subject) -> None:
    """Codes and words of the vendor's own."""
    await check_all(subject, ONLY[subject.name])


@requirement("failure:retry-after")
async def test_the_wait_that_a_vendor_asks_for_is_passed_on(subject: Subject) -> None:
    """OpenAI says it in words; Claude Code says only how long it waits itself."""
    if subject.name == "codex":
        fault = Fault(error_after=0, code="rate_limit_exceeded", message="Please try again in 1.2s.")
    else:
        fault = Fault(status=429, headers={"retry-after": "2" if subject.name == "claude" else "1.2"})
    prompt = subject.script("wait", Reply(fault=fault), Reply(text="At last."))
    events = await subject.caller.run(prompt)
    (retry,) = [event.notice.retry for event in events if event.notice.code == "model_retry"]

    assert said(events) == "At last."
    assert retry.delay.ToMilliseconds() >= 1200
    if subject.name != "claude":
        error = await check(subject, "waits", fault, Reason.FAILURE_REASON_RATE_LIMIT)
        assert error.retry_after.ToMilliseconds() == 1200


@requirement("failure:reason")
async def test_a_dead_endpoint_fails_the_turn_as_a_network_error(subject: Subject) -> None:
    """Nothing listens where the vendor should be."""
    with tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "key").write_text(KEY)
        with configured(subject.name, "http://127.0.0.1:9", directory / "key") as create:
            provider = create()
        async with serving(provider, directory) as caller, asyncio.timeout(BOUND):
            events = await caller.run("go")

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_NETWORK
    assert events[-1].turn_failed.error.retryable


@requirement("failure:cut")
async def test_an_answer_that_is_cut_says_so(subject: Subject) -> None:
    """Claude Code asks for the rest a few times by itself. Its text is kept."""
    prompt = subject.script("cut", Reply(text="Half a sentence", stop="max_tokens", repeat=9))
    events = await subject.caller.run(prompt)

    assert events[-1].turn_completed.stop_reason == event_pb2.STOP_REASON_MAX_TOKENS
    assert said(events) == "Half a sentence"


@requirement("failure:cut")
async def test_a_refusal_fails_as_refused(subject: Subject) -> None:
    """OpenAI says it as a code, Anthropic as a stop reason."""
    policy = Reply(fault=Fault(error_after=0, code="cyber_policy"))
    reply = policy if subject.name == "codex" else Reply(stop="refusal", repeat=9)
    error = (await subject.caller.run(subject.script("refusal", reply)))[-1].turn_failed.error

    assert error.reason == error_pb2.FAILURE_REASON_REFUSED
    assert not error.retryable


@requirement("failure:silence")
async def test_a_model_that_falls_silent_fails_the_turn(subject: Subject) -> None:
    """Claude Code waits for an answer to begin, others for it to go on; all ask once more."""
    variables = ("ALIVE_CLAUDE_REQUEST_SECONDS", "ALIVE_CODEX_SILENCE_SECONDS", "ALIVE_REFERENCE_SILENCE_SECONDS")
    impatient = dict.fromkeys(variables, "1")
    fault = Fault(stall_after=0 if subject.name == "claude" else 2)
    prompt = subject.script("silence", Reply(text="This stops here.", chunk=4, fault=fault, repeat=9))
    with tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "key").write_text(KEY)
        with configured(subject.name, subject.model.url, directory / "key", **impatient) as create:
            provider = create()
        async with serving(provider, directory) as caller, asyncio.timeout(BOUND):
            events = await caller.run(prompt)

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_NETWORK
    assert events[-1].turn_failed.error.retries == notices(events).count("model_retry") == 1


@requirement("failure:retry")
async def test_an_error_that_passes_is_retried_with_a_notice(subject: Subject) -> None:
    """The first request fails, the second is answered."""
    prompt = subject.script("passing", Reply(fault=Fault(status=500)), Reply(text="At last."))
    events = await subject.caller.run(prompt)

    assert said(events) == "At last."
    assert "model_retry" in notices(events)


@requirement("item:retracted")
async def test_text_of_a_broken_stream_is_retracted(subject: Subject) -> None:
    """The connection breaks after some text was shown."""
    broken = Reply(text="This will be said twice.", chunk=4, gap=0.05, fault=Fault(drop_after=3))
    events = await subject.caller.run(subject.script("broken", broken, Reply(text="Said whole.")))

    assert said(events) == "Said whole."
    assert kinds(events).count("item_retracted") == 1
    assert events[-1].HasField("turn_completed")
