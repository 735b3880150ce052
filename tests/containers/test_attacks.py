"""The attacks again, where the services are in containers."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable

import pytest
from google.protobuf import json_format

from alive.agent.v1 import agent_service_pb2, event_pb2
from alive_kit.testing.scripted_model import Reply, RunCommand, Script
from alive_kit.testing.scripted_model.control import ModelControl

from ..attacks.attacks import ATTACKS, Attack
from ..attacks.conftest import output_of
from .conftest import Containers

START = "alive.agent.v1.AgentService/StartTurn"
PROVIDERS = {"claude": "anthropic", "codex": "openai"}
VICTIM, STATE = "/var/lib/alive/workspaces/victim.example", "/var/lib/alive"
Row = Callable[..., None]

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def tenants(containers: Containers) -> Containers:
    """Return the system with an attacker's workspace and a victim's."""
    for name in ("attacker.example", "victim.example"):
        containers.compose("run", "--rm", "workspace", name)
    owner = containers.inside("claude", "stat", "-c", "%u", VICTIM).strip()
    become = ("setpriv", f"--reuid={owner}", f"--regid={owner}", "--clear-groups", "--")
    containers.inside("claude", *become, "sh", "-c", f"echo canary > {VICTIM}/secret.txt")
    return containers


@pytest.fixture
async def model(containers: Containers) -> AsyncIterator[ModelControl]:
    """Return the scripted model's control."""
    async with ModelControl(f"http://127.0.0.1:{containers.model_port}") as control:
        yield control


@pytest.mark.parametrize("provider", PROVIDERS)
# A number that is a process of the container is one of the box as well: it says nothing about who would be killed.
@pytest.mark.parametrize(
    "attack", [one for one in ATTACKS if one.name != "process: kill"], ids=lambda attack: attack.slug
)
async def test_in_containers(tenants: Containers, model: ModelControl, attack: Attack, provider: str, row: Row) -> None:
    """With the agents' own tools."""
    row(attack.name, attack.tried, provider, "containers, tool", attack.blocked_by)
    values = {
        "VICTIM": VICTIM,
        "STATE": STATE,
        "RUN": "/run/alive",
        "ROUTER_PORT": 50051,
        "MODEL_PORT": tenants.model_port,
        "SECRET_SUM": hashlib.sha256(f"canary-{PROVIDERS[provider]}-key".encode()).hexdigest(),
    }
    variables = "".join(f"export {name}='{value}'\n" for name, value in values.items())
    replies = [Reply(actions=[RunCommand(command=f"{variables}{attack.script}\necho TRIED")]), Reply(text="Done.")]
    marker = await model.script(f"{provider}-{attack.slug}", Script(replies=replies))
    request = {
        "workspace_id": "attacker.example",
        "provider_id": provider,
        "input": [{"text": f"{marker} go"}],
        "permissions": {"sandbox": "SANDBOX_FULL_ACCESS", "approval_policy": "APPROVAL_POLICY_BYPASS"},
    }
    events = events_of(tenants.call(START, json.dumps(request)))
    output = output_of(events)

    assert "TRIED" in output or (attack.harms_itself and events[-1].HasField("turn_failed")), output
    assert "WON" not in output


def events_of(said: str) -> list[event_pb2.Event]:
    """Return the events in what grpcurl says."""
    decoder, events = json.JSONDecoder(), []
    while said := said.lstrip():
        value, end = decoder.raw_decode(said)
        events.extend(json_format.ParseDict(value, agent_service_pb2.StartTurnResponse()).events)
        said = said[end:]
    return events
