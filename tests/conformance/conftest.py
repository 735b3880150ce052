"""Runs every installed provider on the scripted model, each as it declares itself."""

import contextlib
import importlib
import json
import shutil
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from alive.agent.v1 import event_pb2, item_pb2, provider_pb2
from alive_kit import launch
from alive_kit.testing import boxes
from alive_kit.testing.boxes import can_be_built, give_to_agent
from alive_kit.testing.harness import Caller, serving
from alive_kit.testing.requirements import EXCLUDED_BY
from alive_kit.testing.scripted_model import Reply, ScriptedModel
from alive_stack.declarations import BoxDeclaration, Declaration, declaration, declared

CHECKOUT = Path(__file__).parents[2]
KEY = "canary-key-6f1b2c"

_KIT = tomllib.loads((CHECKOUT / "services/kit/pyproject.toml").read_text())["tool"]["alive"]
DECLARATIONS = {
    **{service.name: service for service in declared(CHECKOUT)},
    "reference": declaration("reference", _KIT["reference"]),
}
PROVIDERS = sorted(entry.name for entry in entry_points(group="alive.providers"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A provider's service under test, and the model that it asks."""

    name: str
    caller: Caller
    model: ScriptedModel
    directory: Path
    kind: str
    """Its name, and where its agents run."""
    boxed: bool
    """Whether its agents have boxes around them."""

    def workspace(self, name: str) -> Path:
        """Return an empty workspace of the test's own."""
        path = self.caller.workspaces / name
        path.mkdir()
        if self.boxed:
            give_to_agent(path)
        return path

    def capability(self, name: str) -> provider_pb2.Capability:
        """Return what the provider declares about something; nothing about what it does not name."""
        assert self.caller.service is not None
        declared = self.caller.service.info.capabilities
        return next((capability for capability in declared if capability.name == name), provider_pb2.Capability())

    def script(self, name: str, *replies: Reply) -> str:
        """Set a script and return the prompt that plays it."""
        return self.model.script(f"{self.kind}-{name}", replies) + " go"

    def bodies(self, name: str) -> list[dict[str, Any]]:
        """Return what the model was sent for a script."""
        return [entry.body for entry in self.model.journal.entries(f"{self.kind}-{name}")]

    def sent(self, name: str) -> str:
        """Return everything the model was sent for a script, as one text."""
        return json.dumps(self.bodies(name), ensure_ascii=False)


@pytest.fixture(scope="session", autouse=True)
def _orphans() -> None:
    launch.adopt_orphans()


@pytest.fixture(scope="session")
async def model() -> AsyncIterator[ScriptedModel]:
    """Return the scripted model."""
    async with ScriptedModel(key=KEY) as model:
        yield model


@contextlib.contextmanager
def configured(name: str, url: str, key_file: Path, **more: str) -> Iterator[Callable[[], Any]]:
    """Set the variables a provider declares, and return what creates it. Without a launcher among them it has none."""
    service: Declaration = DECLARATIONS[name]
    variables = {variable: url + suffix for variable, suffix in service.scripted_model.items()}
    variables |= dict.fromkeys(service.secrets, str(key_file))
    variables |= {variable: "1" for variable in service.settings if variable.endswith("_MAX_RETRIES")}
    create = next(entry for entry in entry_points(group="alive.providers") if entry.name == name).load()
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in {**variables, **more}.items():
            patch.setenv(variable, value)
        yield create


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return an empty directory of the test's own."""
    with tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="session", params=[f"{name}-{where}" for name in PROVIDERS for where in ("box", "bare")])
async def subject(request: pytest.FixtureRequest, model: ScriptedModel) -> AsyncIterator[Subject]:
    """Return each provider's service in turn: with boxes around its agents, and without."""
    name, _, where = request.param.rpartition("-")
    if where == "box" and not can_be_built():
        pytest.skip("no boxes: apt-get install bubblewrap socat")
    async with contextlib.AsyncExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True)))
        directory.chmod(0o711)
        (directory / "key").write_text(KEY)
        link_python(directory / "bin")
        more = {"mcp_path": f"{directory}/bin:/usr/bin:/bin", "homes": directory / "homes"}
        url, variables = model.url, {}
        if where == "box":
            url, variables = boxes.URL, await boxed(name, directory, exits)
            await model.serve_at(directory / "gateway" / "gateway.sock")
        with configured(name, url, directory / "key", **variables) as create:
            provider = create()
        caller = await exits.enter_async_context(serving(provider, directory, **more))
        if where == "box":
            give_to_agent(caller.workspaces / "demo")
        yield Subject(
            name=name, kind=request.param, caller=caller, model=model, directory=directory, boxed=where == "box"
        )


async def boxed(name: str, directory: Path, exits: contextlib.AsyncExitStack, *shown: Path) -> dict[str, str]:
    """Start a launcher for a provider, and return what its service is told of it."""
    box = DECLARATIONS[name].box
    assert box is not None
    program = program_of(box)
    if not program.is_relative_to(sys.prefix):  # The kit's, from the checkout: a box sees this environment only.
        package = box.program.split("/")[0]
        shutil.copytree(importlib.import_module(package).__path__[0], directory / "bin" / package)
        program = directory / "bin" / box.program
    seen = (Path(sys.prefix), directory / "bin", *shown)
    running = boxes.launcher(directory, program, keep=box.keep, nested=box.nested, read_only=seen)
    launcher = await exits.enter_async_context(running)
    return {"ALIVE_LAUNCHER": str(launcher)}


def program_of(box: BoxDeclaration) -> Path:
    """Return a provider's CLI, wherever the package is that brings it."""
    return Path(importlib.import_module(box.program.split("/")[0]).__path__[0]).parent / box.program


def cli_of(name: str) -> tuple[str, Path]:
    """Return the variable that names a provider's CLI, and the CLI."""
    box = DECLARATIONS[name].box
    assert box is not None
    return box.program_setting, program_of(box)


@pytest.fixture(autouse=True)
def _as_declared(request: pytest.FixtureRequest) -> None:
    """Skip a test whose requirement a provider excludes by what it declares."""
    if "subject" not in request.fixturenames:
        return
    subject: Subject = request.getfixturevalue("subject")
    for requirement in getattr(request.function, "requirements", ()):
        capability = subject.capability(EXCLUDED_BY.get(requirement, ""))
        if capability.support == provider_pb2.CAPABILITY_SUPPORT_UNSUPPORTED:
            pytest.skip(f"{subject.name} declares {capability.name} unsupported: {capability.limit}")


def link_python(directory: Path) -> None:
    """Put this Python, which has the MCP library, on a PATH under a name of its own."""
    directory.mkdir()
    program = directory / "notes-python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)


def kinds(events: list[event_pb2.Event]) -> list[str]:
    """Return the kinds of events."""
    return [str(event.WhichOneof("kind")) for event in events]


def items(events: list[event_pb2.Event], kind: str) -> list[item_pb2.Item]:
    """Return the completed items of a kind, those of the user left out."""
    completed = [event.item_completed.item for event in events if event.HasField("item_completed")]
    return [
        item for item in completed if item.WhichOneof("content") == kind and item.message.role != item_pb2.ROLE_USER
    ]


def said(events: list[event_pb2.Event]) -> str:
    """Return the last thing the agent said."""
    return items(events, "message")[-1].message.text


def notices(events: list[event_pb2.Event]) -> list[str]:
    """Return the codes of the notices."""
    return [event.notice.code for event in events if event.HasField("notice")]
