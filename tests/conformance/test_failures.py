"""What goes wrong with the vendor's API, and how a turn tells of it."""

import asyncio
import tempfile
from pathlib import Path

import pytest

from alive.agent.v1 import error_pb2
from alive_kit.testing.harness import serving
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import Fault, Reply

from .conftest import KEY, Subject, configured, kinds, notices, said

BOUND = 30

FAULTS = {
    "wrong-key": (Fault(status=401), error_pb2.FAILURE_REASON_AUTH),
    "forbidden": (Fault(status=403), error_pb2.FAILURE_REASON_AUTH),
    "bad-request": (Fault(status=400), error_pb2.FAILURE_REASON_INVALID_REQUEST),
    "no-model": (Fault(status=404), error_pb2.FAILURE_REASON_MODEL_UNAVAILABLE),
    "rate-limit": (Fault(status=429, headers={"retry-after": "1"}), error_pb2.FAILURE_REASON_RATE_LIMIT),
    "broken": (Fault(status=500), error_pb2.FAILURE_REASON_OVERLOADED),
    "overloaded": (Fault(status=529), error_pb2.FAILURE_REASON_OVERLOADED),
    "dropped": (Fault(drop_after=0), error_pb2.FAILURE_REASON_NETWORK),
}


@requirement("failure:reason")
@pytest.mark.parametrize("fault", FAULTS)
async def test_an_error_of_the_api_fails_the_turn_with_its_reason(subject: Subject, fault: str) -> None:
    """The API answers every request with the same error. The sentence for the user holds no vendor text."""
    what, reason = FAULTS[fault]
    async with asyncio.timeout(BOUND):
        events = await subject.caller.run(subject.script(fault, Reply(fault=what, repeat=40)))
    error = events[-1].turn_failed.error

    assert error_pb2.FailureReason.Name(error.reason) == error_pb2.FailureReason.Name(reason)
    assert "scripted" not in error.message
    assert "http" not in error.message
    assert kinds(events).count("turn_failed") == 1


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
