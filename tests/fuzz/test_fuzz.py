"""Every RPC of every service, with generated messages: nothing breaks, nothing leaks, nothing grows.

`make fuzz REQUESTS=100000` sends more of them.
"""

import asyncio
import os
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor
from hypothesis import strategies as st

from alive.agent.v1 import agent_service_pb2, outcome_service_pb2, resolved_pb2, workspace_service_pb2

from .conftest import ACME, CHANGED, RIVAL, Fuzzed
from .fuzzer import Call, Code, Fuzzer, generated
from .messages import Messages, raw

REQUESTS = int(os.environ.get("ALIVE_FUZZ_REQUESTS", "10000"))
CHANGES = 300
GROWTH = 1.25
"""How much more memory is used in the last quarter than in the second one, at most: large messages leave gaps."""
CACHES = 64.0
"""Megabytes by which a process grows besides: ended turns and the starts of sessions' agents are kept up to a bound
that 10,000 requests do not reach; 24,000 do, and then it is flat."""
METADATA_BYTES = 7000
"""What gRPC's clients send of metadata."""

AGENT = agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]
OUTCOME = outcome_service_pb2.DESCRIPTOR.services_by_name["OutcomeService"]
WORKSPACE = workspace_service_pb2.DESCRIPTOR.services_by_name["WorkspaceService"]
AT_ROUTER = [*AGENT.methods, *WORKSPACE.methods]
AT_PROVIDER = [*AGENT.methods, *OUTCOME.methods]
WITHOUT_TURN = {"SteerTurn", "ResolveApproval", "ReadItemContent"}
"""What is only done with a turn that runs, or with an item that was cut."""

CALLERS = ["rival"] * 12 + ["reader", "", "wrong"]


class Calls:
    """Strategies for calls, at the router and at its provider."""

    def __init__(self, system: Fuzzed) -> None:
        known = _known(system)
        self._usual = Messages(known)
        self._special = {
            "DeleteSession": Messages({**known, "session_id": system.forks}),
            "UpdateWorkspace": Messages({**known, "workspace_id": [CHANGED] * 8 + [ACME]}),
        }

    def everywhere(self) -> st.SearchStrategy[Call]:
        """Return a strategy for calls of every RPC; a provider knows no owners: it is asked about one's own."""
        resolved = _encoded(self._usual.of(resolved_pb2.ResolvedTurn.DESCRIPTOR))
        short = resolved.filter(lambda data: len(data) < METADATA_BYTES)
        at_provider = self.of(AT_PROVIDER, resolved=short).filter(lambda call: ACME.encode() not in call.data)
        return self.of(AT_ROUTER, caller=st.sampled_from(CALLERS)) | at_provider

    def of(self, methods: list[MethodDescriptor], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
        """Return a strategy for calls of some RPCs."""
        return st.sampled_from(methods).flatmap(
            lambda method: st.builds(Call, method=st.just(method), data=_encoded(self._messages(method)), **fields)
        )

    def _messages(self, method: MethodDescriptor) -> st.SearchStrategy[Any]:
        return self._special.get(method.name, self._usual).of(method.input_type)


def _encoded(messages: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Return a strategy for serialized messages, some of them spoilt."""
    return messages.flatmap(
        lambda message: st.integers(0, 9).flatmap(
            lambda number: raw(message) if number == 1 else st.just(message.SerializeToString())
        )
    )


def _known(system: Fuzzed) -> dict[str, list[Any]]:
    """Return what fits fields of a name: the caller's own, another owner's, and what there is not."""
    return {
        "workspace_id": [RIVAL] * 8 + [CHANGED] * 2 + [ACME, "absent.example"],
        "turn_id": [""] * 4 + [system.turns[RIVAL]] * 4 + [system.turns[ACME], "early"],
        "session_id": [system.sessions[RIVAL]] * 6 + [system.sessions[ACME], "", "absent"],
        "provider_id": ["reference"] * 6 + ["off", "absent", ""],
        "owner_id": ["rival", "acme"],
        "input": [],
        "text": ["hello"],
        "settings": [],
        "rollout": [],
        "command": ["python3"],
        "url": ["http://127.0.0.1:9/", "http://[", "http://a:b:c", "https://[::1]:99999/"],
        "output_schema": ['{"type": "object"}', '{"type": "object", "$ref": "#"}'],
    }


@pytest.mark.timeout(60 + REQUESTS // 25)
async def test_no_request_breaks_anything(fuzzed: Fuzzed) -> None:
    """No INTERNAL, no crash, nothing of another owner's, no growth; what an owner has is as it was."""
    fuzzer = Fuzzer(fuzzed)
    before = await fuzzed.state(ACME)
    await generated(Calls(fuzzed).everywhere(), REQUESTS, fuzzer.send)

    assert not fuzzer.defects, "\n".join(f"{defect} after {call}" for defect, call in fuzzer.defects.items())
    assert fuzzer.sent >= REQUESTS
    assert {name for name, code in fuzzer.codes if code == "OK"} >= {method.name for method in AT_ROUTER} - WITHOUT_TURN
    assert await fuzzed.state(ACME) == before
    assert (await fuzzed.turn(RIVAL))[-1].HasField("turn_completed")
    for name in fuzzed.processes:
        earlier, later = fuzzer.used(name, 0.25, 0.5), fuzzer.used(name, 0.75, 1.0)
        assert later <= earlier * GROWTH + CACHES, f"{name} grows: {earlier:.0f} MB, then {later:.0f} MB"


async def test_a_refused_change_changes_nothing(fuzzed: Fuzzed) -> None:
    """Of settings and of rollouts: what is refused leaves all of it as it was."""
    fuzzer, one, refused = Fuzzer(fuzzed), asyncio.Lock(), dict[str, bool]()

    async def send(batch: list[Call]) -> None:
        async with one:
            for call in batch:
                before = await fuzzed.settings(CHANGED)
                if (await fuzzer.call(call)).code is not Code.OK:
                    refused[str(call)] = await fuzzed.settings(CHANGED) == before

    changes = [method for method in WORKSPACE.methods if method.name.startswith("Update")]
    await generated(Calls(fuzzed).of(changes, caller=st.just("rival")), CHANGES, send)

    assert [call for call, is_as_before in refused.items() if not is_as_before] == []
    assert len(refused) > CHANGES // 10
