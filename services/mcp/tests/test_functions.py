"""Every tool as the plain function that it is."""

import json
from pathlib import Path

import pytest

from alive_mcp.email.server import read_email, send_reply
from alive_mcp.errors import Refused
from alive_mcp.tools.documents import get_alive_super_template, get_workflow, list_workflows
from alive_mcp.tools.logs import debug_workspace, read_server_logs
from alive_mcp.tools.persona import generate_persona
from alive_mcp.tools.questions import Question, ask_automation_config, ask_clarification, ask_website_config
from alive_mcp.tools.server import search_tools
from alive_mcp.workspace.assets import copy_shared_asset
from alive_mcp.workspace.files import edit, glob, grep, list_directory, read, write
from alive_mcp.workspace.packages import check_codebase, install_package
from alive_mcp.workspace.site import create_website, delete_file, restart_dev_server, switch_serve_mode

from .conftest import SITE, Caller, World

QUESTION = Question.model_validate(
    {"id": "colour", "question": "Which?", "options": [{"label": label} for label in ("red", "green", "blue")]}
)


def test_tools_of_services_that_are_not_connected_are_hidden(world: World) -> None:
    """search_tools shows those of GitHub to whoever has connected it."""
    found = search_tools(world.context(), "external-mcp").tools
    nothing = search_tools(world.context(ALIVE_CONNECTED_PROVIDERS=""), "external-mcp").tools

    assert [entry.name for entry in found] == ["mcp__github__*"]
    assert nothing == []


def test_tools_are_listed_in_as_much_detail_as_asked(world: World) -> None:
    """Names, sentences, or parameters too; the file tools only where they are offered."""
    minimal = {entry.name: entry for entry in search_tools(world.context(), None, "minimal").tools}
    full = {entry.name: entry for entry in search_tools(world.context(ALIVE_FILE_TOOLS="1"), None, "full").tools}
    lines = (full["mcp__alive-tools__read_server_logs"].parameters or {})["properties"]["lines"]

    assert minimal["mcp__alive-email__send_reply"].description is None
    assert (lines["minimum"], lines["maximum"], lines["default"]) == (1, 1000, 100)
    assert full.keys() - minimal.keys() == {
        f"mcp__alive-workspace__{name}" for name in ("read", "write", "edit", "glob", "grep", "list")
    }


def test_every_workflow_that_is_listed_can_be_read(world: World) -> None:
    """Five of them."""
    listed = list_workflows(world.context()).workflows

    assert len(listed) == 5
    for workflow in listed:
        assert workflow.title in get_workflow(world.context(), workflow.workflow_type)


def test_a_super_template_is_read(world: World) -> None:
    """One that is not there is answered with those that are."""
    assert "landing page" in get_alive_super_template(world.context(), "landing-page")
    with pytest.raises(Refused, match="landing-page"):
        get_alive_super_template(world.context(), "unknown")


async def test_logs_are_read_as_asked(world: World) -> None:
    """By text, by expression, by time, and at most so many lines."""
    sites = world.product.sites
    sites.log(SITE, "GET / 200", ago=7200)
    for number in range(5):
        sites.log(SITE, f"GET /{number} 404")

    assert (await read_server_logs(world.context(), SITE)).count("\n") == 5
    assert await read_server_logs(world.context(), SITE, search="/3") == "GET /3 404"
    assert await read_server_logs(world.context(), SITE, search_regex="/[01] ", lines=1) == "GET /1 404"
    assert "200" not in await read_server_logs(world.context(), SITE, since="10 minutes ago")
    assert await read_server_logs(world.context(), SITE, search="nothing") == "Nothing was logged that fits."


async def test_only_the_own_workspaces_logs_are_read(world: World) -> None:
    """The product is not even asked."""
    with pytest.raises(Refused, match=SITE):
        await read_server_logs(world.context(), "victim.example")
    assert world.product.calls == []


async def test_logs_are_diagnosed(world: World) -> None:
    """Each line counts for the first thing that it points to."""
    for line in ("Error: Cannot find module 'zod'", "TypeError: x is not a function", "GET / 200"):
        world.product.sites.log(SITE, line)
    diagnosis = await debug_workspace(world.context(), SITE)

    assert [finding.problem for finding in diagnosis.findings] == [
        "A module cannot be found",
        "The code has thrown an error",
    ]
    assert diagnosis.lines_read == 3


async def test_a_persona_is_the_products(world: World) -> None:
    """A nested model would need credentials, which a box does not have."""
    caller = Caller()
    persona = await generate_persona(world.context(), caller, "A bakery", "briefly", "It opens at five.")

    assert "A bakery" in persona
    assert "It opens at five." in persona
    assert caller.told == ["Describing the person"]


async def test_a_question_is_shown_or_asked(world: World) -> None:
    """What front ends show has the questions; what clients ask comes back answered, or declined."""
    shown = await ask_clarification(world.context(), Caller(), [QUESTION], "Colours")
    asking = Caller(can_ask=True, answers={"colour": "red", "other": "x"})
    answered = await ask_clarification(world.context(), asking, [QUESTION])
    declined = await ask_clarification(world.context(), Caller(can_ask=True), [QUESTION])

    assert json.loads(shown.model_dump_json(by_alias=True, exclude_none=True)) == {
        "type": "clarification_questions",
        "questions": [QUESTION.model_dump(exclude_none=True)],
        "context": "Colours",
    }
    assert asking.asked[0][1]["colour"]["enum"] == ["red", "green", "blue"]
    assert answered.model_dump() == {"type": "answers", "answers": {"colour": "red"}}
    assert declined.type == "declined"


async def test_questions_have_ids_of_their_own(world: World) -> None:
    """Or their answers could not be told apart."""
    with pytest.raises(Refused, match="id of its own"):
        await ask_clarification(world.context(), Caller(), [QUESTION, QUESTION])


async def test_a_website_is_configured(world: World) -> None:
    """With the product's templates."""
    shown = await ask_website_config(world.context(), Caller(), defaultSlug="bakery")
    asking = Caller(can_ask=True, answers={"slug": "bakery"})
    await ask_website_config(world.context(), asking)

    assert (shown.type, shown.templates[0].template_id, shown.default_slug) == (
        "website_config",
        "tmpl_blank",
        "bakery",
    )
    assert asking.asked[0][1]["templateId"]["enum"] == ["tmpl_blank"]


async def test_an_automation_is_configured(world: World) -> None:
    """For one of the user's websites; without any it is refused."""
    with pytest.raises(Refused, match="no website yet"):
        await ask_automation_config(world.context(), Caller())
    world.product.sites.hostnames.append("bakery.example")
    shown = await ask_automation_config(world.context(), Caller(), defaultSiteId="bakery.example")
    with pytest.raises(Refused, match=r"bakery\.example"):
        await ask_automation_config(world.context(), Caller(), defaultSiteId="other.example")

    assert [site.hostname for site in shown.sites] == ["bakery.example"]


async def test_the_server_is_restarted(world: World) -> None:
    """Its caches are cleared; too soon afterwards the product says how long to wait."""
    world.file("node_modules/.vite/cache")
    assert "node_modules/.vite" in await restart_dev_server(world.context())
    with pytest.raises(Refused, match=r"tried too often.*wait 10 s"):
        await restart_dev_server(world.context())

    assert not (world.workspace / "node_modules/.vite").exists()


async def test_the_serve_mode_is_switched(world: World) -> None:
    """Nothing is built from nothing."""
    with pytest.raises(Refused, match="nothing to build"):
        await switch_serve_mode(world.context(), Caller(), "build")
    world.file("package.json", "{}")
    assert "mode build" in await switch_serve_mode(world.context(), Caller(), "build")

    assert world.product.sites.modes == {SITE: "build"}


async def test_a_website_is_made(world: World) -> None:
    """And is there; a name that is taken is refused."""
    made = await create_website(world.context(), Caller(), "bakery", "Bread and cakes", "tmpl_blank")
    with pytest.raises(Refused, match="taken"):
        await create_website(world.context(), Caller(), "bakery")

    assert made.hostname == "bakery.example"
    assert "Bread and cakes" in (world.workspace.parent / "bakery.example/README.md").read_text()


async def test_a_file_is_deleted(world: World) -> None:
    """A directory only when all in it may go."""
    one, two = world.file("old/one.txt"), world.file("old/two.txt")
    assert await delete_file(world.context(), "old/one.txt") == "Deleted old/one.txt."
    with pytest.raises(Refused, match="set recursive"):
        await delete_file(world.context(), "old")
    await delete_file(world.context(), f"{world.workspace}/old", recursive=True)

    assert not one.exists()
    assert not two.parent.exists()


@pytest.mark.parametrize(
    "path",
    ["index.ts", "src/index.js", "package.json", "PACKAGE.JSON", "bun.lockb", "tsconfig.json", "node_modules/x", ".git",
     ".git/config", ".well-known/x", "\uff50ackage.json"],
)  # fmt: skip
async def test_what_a_website_needs_is_protected(world: World, path: str) -> None:
    """The product is not even asked."""
    world.file(path.lower())
    with pytest.raises(Refused, match="protected"):
        await delete_file(world.context(), path)
    assert world.product.calls == []


async def test_a_directory_with_something_protected_is_not_deleted(world: World) -> None:
    """Not as a whole."""
    kept = world.file("src/deep/package.json")
    with pytest.raises(Refused, match=r"package\.json \(in src/deep/package\.json\) is protected"):
        await delete_file(world.context(), "src", recursive=True)
    assert kept.exists()


def test_an_asset_is_copied(world: World, tmp_path: Path) -> None:
    """One of the package's, or of the operator's directory."""
    (tmp_path / "assets/fonts/satoshi").mkdir(parents=True)
    (tmp_path / "assets/fonts/satoshi/satoshi.woff2").write_bytes(b"\0font")
    context = world.context(ALIVE_ASSETS=f"{tmp_path}/assets")
    copy_shared_asset(context, "fonts/satoshi", "public/fonts")
    copy_shared_asset(context, "images/placeholder")
    with pytest.raises(Refused, match=r"fonts/satoshi, icons/arrows, images/placeholder"):
        copy_shared_asset(context, "fonts/unknown")

    assert (world.workspace / "public/fonts/satoshi.woff2").read_bytes() == b"\0font"
    assert (world.workspace / "public/images/placeholder/placeholder.svg").is_file()


async def test_a_package_is_not_installed_while_the_network_is_closed(world: World) -> None:
    """And the result says what would open it."""
    with pytest.raises(Refused, match=r"network policy of this workspace is closed.*ALIVE_REGISTRY_URL"):
        await install_package(world.context(), Caller(), "zod")


async def test_the_code_is_checked(world: World) -> None:
    """By the workspace's own programs: what they find is listed, at most ten; what is not there is skipped."""
    errors = "; ".join(f"console.log('a.ts({n},1): error TS2304: Cannot find name x')" for n in range(12))
    tsc = world.file("node_modules/.bin/tsc", f"#!/usr/bin/env node\n{errors}; process.exit(2)\n")
    tsc.chmod(0o755)
    world.file("package.json", '{"scripts": {"lint": "echo fine"}}')
    types, lint = (found := await check_codebase(world.context(), Caller())).checks
    world.file("package.json", "{}")
    tsc.unlink()
    nothing = await check_codebase(world.context(), Caller())

    assert (found.passed, types.passed, len(types.errors), types.more, lint.passed) == (False, False, 10, 2, True)
    assert "error TS2304" in types.errors[0]
    assert (nothing.passed, len(nothing.skipped)) == (True, 2)


async def test_the_mail_is_read_and_answered(world: World) -> None:
    """The reply is sent by whoever runs the automation, from the call itself."""
    with pytest.raises(Refused, match="no mail has started this"):
        await read_email(world.context())
    world.product.sites.emails[SITE] = {"sender": "bo@example.com", "subject": "Hours", "text": "When do you open?"}

    assert (await read_email(world.context())).text == "When do you open?"
    assert "16 characters" in send_reply(world.context(), "We open at five.")
    assert [call.path for call in world.product.calls] == ["/api/internal-tools/triggering-email"] * 2


async def test_files_are_read_and_changed(world: World) -> None:
    """Whole, in part, by path and by what is in them."""
    context = world.context()
    assert write(context, "src/a.ts", "one\ntwo\nthree\n") == "Made src/a.ts (3 lines)."
    assert read(context, "src/a.ts", offset=2, limit=1) == "2\ttwo\n[1 more lines: read on with offset 3]"
    assert edit(context, "src/a.ts", "two", "2") == "Replaced 1 place in src/a.ts."
    assert write(context, "src/a.ts", "a a\n").startswith("Replaced")
    with pytest.raises(Refused, match="2 times"):
        edit(context, "src/a.ts", "a", "b")
    assert edit(context, "src/a.ts", "a", "b", replace_all=True) == "Replaced 2 places in src/a.ts."
    world.file("node_modules/x/b.ts", "b")
    assert await glob(context, "**/*.ts") == "src/a.ts"
    assert await glob(context, "*.ts", "src") == "src/a.ts"
    assert await grep(context, "^b", include="*.ts") == "src/a.ts:1:b b"
    assert list_directory(context) == "node_modules/\nsrc/"


async def test_a_search_that_never_ends_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An expression can take for ever; it holds up nothing else."""
    monkeypatch.setattr("alive_mcp.workspace.search._SECONDS", 1.0)
    world.file("a.txt", f"{'a' * 60}b\n")
    with pytest.raises(Refused, match="took too long"):
        await grep(world.context(), "(a+)+$")
