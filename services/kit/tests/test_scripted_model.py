"""The scripted model, spoken to as the vendors' CLIs do."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from alive_kit.testing.scripted_model import Fault, ModelControl, Reply, RunCommand, Script, ScriptedModel, WriteFile

ENDPOINTS = ("/v1/messages", "/v1/responses")


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel() as model:
        yield model


async def ask(model: ScriptedModel, endpoint: str, text: str, *, session: str = "s", **more: Any) -> tuple[int, str]:
    """Ask as the vendor's CLI would, and return status and body."""
    user = {"role": "user", "content": text}
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    body = {"model": "m", "stream": True, "messages": [user], "input": [item], "prompt_cache_key": session, **more}
    headers = {"x-claude-code-session-id": session, "authorization": "Bearer right"}
    async with aiohttp.ClientSession() as http, http.post(model.url + endpoint, json=body, headers=headers) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_replies_come_in_order_for_each_session(model: ScriptedModel, endpoint: str) -> None:
    """Two sessions go through the same script on their own."""
    prompt = model.script("words", [Reply(text="First."), Reply(text="Second.")])
    answers = [await ask(model, endpoint, prompt, session=session) for session in ("a", "b", "a")]

    assert ["First." in body for _, body in answers] == [True, True, False]
    assert "Second." in answers[2][1]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_actions_become_the_vendors_own_tools(model: ScriptedModel, endpoint: str) -> None:
    """A command and a file; the words differ, the actions do not."""
    actions = [RunCommand(command="true"), WriteFile(path="a.txt", content="a\n")]
    _, body = await ask(model, endpoint, model.script("act", [Reply(actions=actions)]))
    names = ("Bash", "Write") if endpoint.endswith("messages") else ("exec_command", "apply_patch")

    assert all(f'"name": "{name}"' in body for name in names)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
async def test_a_status_is_answered_with_its_headers(model: ScriptedModel, endpoint: str, status: int) -> None:
    """And with a body in the vendor's own shape."""
    prompt = model.script("fault", [Reply(fault=Fault(status=status, headers={"retry-after": "7"}))])
    got, body = await ask(model, endpoint, prompt)

    assert got == status
    assert "error" in json.loads(body)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_drop_breaks_the_connection_in_the_middle(model: ScriptedModel, endpoint: str) -> None:
    """Some of the text has come."""
    prompt = model.script("drop", [Reply(text="Long enough to be cut.", chunk=4, fault=Fault(drop_after=2))])
    with pytest.raises(aiohttp.ClientError):
        await ask(model, endpoint, prompt)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_stall_waits_until_it_is_released(model: ScriptedModel, endpoint: str) -> None:
    """The rest comes afterwards."""
    prompt = model.script("stall", [Reply(text="Late.", chunk=2, fault=Fault(stall_after=1))])
    asking = asyncio.create_task(ask(model, endpoint, prompt))
    await model.arrived("stall")
    done, _ = await asyncio.wait({asking}, timeout=0.1)
    model.release()

    assert not done
    assert (await asking)[0] == 200


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_an_error_in_the_middle_is_the_vendors_event(model: ScriptedModel, endpoint: str) -> None:
    """The status was fine already."""
    prompt = model.script("error", [Reply(text="Broken off.", chunk=4, fault=Fault(error_after=1))])
    status, body = await ask(model, endpoint, prompt)

    assert status == 200
    assert "event: error" in body or "response.failed" in body or '"type": "error"' in body


async def test_the_journal_keeps_what_was_sent(model: ScriptedModel) -> None:
    """Body, headers and path of each request."""
    await ask(model, "/v1/messages", model.script("kept", [Reply(text="Yes.")]), temperature=0.5)
    (entry,) = model.journal.entries("kept")

    assert entry.body["temperature"] == 0.5
    assert entry.headers["authorization"] == "Bearer right"
    assert entry.path == "/v1/messages"
    assert entry.answered


async def test_a_wrong_key_is_refused() -> None:
    """Where a key is set."""
    async with ScriptedModel(key="another") as model:
        status, _ = await ask(model, "/v1/responses", "hello")

    assert status == 401


async def test_a_model_of_its_own_process_is_controlled_over_http(model: ScriptedModel) -> None:
    """Scripts are set and the journal is read."""
    async with ModelControl(model.url) as control:
        prompt = await control.script("remote", Script(replies=[Reply(text="From afar.")]))
        _, body = await ask(model, "/v1/messages", prompt)
        entries = await control.journal("remote", count=1)

    assert "From afar." in body
    assert len(entries) == 1
