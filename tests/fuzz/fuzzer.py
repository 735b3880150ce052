"""Makes generated calls, and looks at what comes back."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from alive.agent.v1.error_pb2 import FailureReason

from .conftest import CANARY, Fuzzed, bearer

AT_ONCE = 10
CALL_SECONDS = 30.0
ENDLESS = {"WatchOutcomes": 0.1}
"""Streams that go on for ever, and how long they are read, in seconds."""

SERVED_BYTES = 16 << 20
"""What is larger gRPC refuses by itself, without a reason."""

Code = grpc.StatusCode
EXPECTED = {
    Code.OK,
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.ALREADY_EXISTS,
    Code.FAILED_PRECONDITION,
    Code.OUT_OF_RANGE,
    Code.UNIMPLEMENTED,
    Code.RESOURCE_EXHAUSTED,
    Code.PERMISSION_DENIED,
    Code.UNAUTHENTICATED,
}
"""What calls end with where nothing is broken."""

DEFECTS = {
    FailureReason.FAILURE_REASON_INTERNAL,
    FailureReason.FAILURE_REASON_UNKNOWN,
    FailureReason.FAILURE_REASON_CRASHED,
    FailureReason.FAILURE_REASON_STORAGE,
    FailureReason.FAILURE_REASON_SPAWN,
}
"""How no turn ends where nothing is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to be made."""

    method: MethodDescriptor
    data: bytes = field(repr=False)
    caller: str = ""
    """Who calls the router; empty for nobody. The provider is called as the router calls it."""
    resolved: bytes | None = field(default=None, repr=False)
    """What the router is said to have decided; None for a call of the router itself."""

    def __str__(self) -> str:
        return f"{self.method.full_name} by {self.caller or 'nobody'} with {self.data[:300]!r} ({len(self.data)} bytes)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    code: grpc.StatusCode
    messages: list[Any]
    status: status_pb2.Status
    said: bytes
    """All of it."""

    @property
    def fields(self) -> list[str]:
        """The fields that a refusal names."""
        bad = error_details_pb2.BadRequest()
        return [each.field for detail in self.status.details if detail.Unpack(bad) for each in bad.field_violations]


class Fuzzer:
    """Keeps what was wrong, and how much memory was used."""

    def __init__(self, system: Fuzzed) -> None:
        self._system = system
        self._secrets = (CANARY, *system.secrets)
        self.codes: Counter[tuple[str, str]] = Counter()
        self.sent = 0
        self.defects: dict[str, Call] = {}
        """What was wrong, with the first call of which."""
        self._memory: list[dict[str, float]] = []

    async def send(self, calls: list[Call]) -> None:
        """Make calls at the same time, and check what comes back."""
        answers = await asyncio.gather(*map(self.call, calls))
        for call, answer in zip(calls, answers, strict=True):
            self.codes[call.method.name, answer.code.name] += 1
            for defect in self._defects(call, answer):
                self.defects.setdefault(f"{call.method.name}: {defect}", call)
        self.sent += len(calls)
        self._memory.append({name: process.memory for name, process in self._system.processes.items()})

    async def call(self, call: Call) -> Answer:
        """Make a call and return all that comes back."""
        at_router = call.resolved is None
        channel = self._system.router if at_router else self._system.provider
        metadata = bearer(call.caller) if at_router else (("x-alive-resolved-bin", call.resolved),)
        method = channel.unary_stream if call.method.server_streaming else channel.unary_unary
        path = f"/{call.method.containing_service.full_name}/{call.method.name}"
        made = method(path)(call.data, metadata=metadata, timeout=CALL_SECONDS)
        received: list[bytes] = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            if call.method.server_streaming:
                await _read(made, received, ENDLESS.get(call.method.name, CALL_SECONDS))
            else:
                received.append(await made)
        return await _answer(call, made, received)

    def used(self, name: str, begin: float, end: float) -> float:
        """Return how many megabytes a process mostly used in a part of the time."""
        count = len(self._memory)
        return median(used[name] for used in self._memory[int(count * begin) : int(count * end)])

    def _defects(self, call: Call, answer: Answer) -> Iterator[str]:
        """Yield what is wrong with an answer."""
        is_left = answer.code is Code.CANCELLED and call.method.name in ENDLESS
        if answer.code not in EXPECTED and not is_left:
            yield f"{answer.code.name} {answer.said[:300]!r}"
        elif not (answer.code is Code.OK or answer.status.details or is_left or len(call.data) > SERVED_BYTES):
            yield f"{answer.code.name} without a reason {answer.said[:300]!r}"
        if answer.code is Code.INVALID_ARGUMENT and not all(answer.fields or [""]):
            yield "no field is named"
        for event in (event for message in answer.messages for event in getattr(message, "events", ())):
            if event.turn_failed.error.reason in DEFECTS:
                yield f"a turn ended as {FailureReason.Name(event.turn_failed.error.reason)}"
        if call.resolved is None:
            told = [secret for secret in self._secrets if secret.encode() in answer.said]
            yield from (f"{secret} is another owner's" for secret in told if secret.encode() not in call.data)


async def _read(made: Any, received: list[bytes], seconds: float) -> None:
    """Read a stream to its end, or for a while where it has none."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while isinstance(message := await made.read(), bytes):
                received.append(message)


async def _answer(call: Call, made: Any, received: list[bytes]) -> Answer:
    details = dict(await made.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    output = GetMessageClass(call.method.output_type)
    return Answer(
        code=await made.code(),
        messages=[output.FromString(message) for message in received],
        status=status_pb2.Status.FromString(details),
        said=b"".join([*received, details, (await made.details() or "").encode()]),
    )


async def generated(calls: st.SearchStrategy[Call], count: int, send: Callable[[list[Call]], Awaitable[None]]) -> None:
    """Have calls made in batches; the same ones every time. Messages are made while those before are sent."""
    loop = asyncio.get_running_loop()
    sending = deque([asyncio.run_coroutine_threadsafe(_as_coroutine(send, []), loop)])

    @settings(
        max_examples=max(1, count // AT_ONCE),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(calls, min_size=AT_ONCE, max_size=AT_ONCE))
    def make(batch: list[Call]) -> None:
        sending.append(asyncio.run_coroutine_threadsafe(_as_coroutine(send, batch), loop))
        sending.popleft().result()

    await asyncio.to_thread(make)
    await asyncio.wrap_future(sending.pop())


async def _as_coroutine(send: Callable[[list[Call]], Awaitable[None]], batch: list[Call]) -> None:
    await send(batch)
