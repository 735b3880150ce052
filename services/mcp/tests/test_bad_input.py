"""Whatever comes in, and whatever the product does: a sentence that the model can act on, and the server lives on."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from alive_mcp import product
from alive_mcp.errors import Refused

from .conftest import SITE, World, serving, text

QUESTION = {"id": "q", "question": "Which?", "options": [{"label": label} for label in "abc"]}
LONG = "x" * 200_000
SLOW = "/api/internal-tools/read-logs"

WRONG: dict[str, list[tuple[str, dict[str, Any], str]]] = {
    "tools": [
        ("search_tools", {"category": "secrets"}, "category: Input should be"),
        ("search_tools", {"detail_level": 3}, "detail_level: Input should be"),
        ("search_tools", {"workspace": "/etc"}, "has no parameter 'workspace'; it takes category, detail_level"),
        ("list_workflows", {"\u202eevil\ud7ff": 1}, "has no parameter"),
        ("get_workflow", {}, "workflow_type: Field required"),
        ("get_workflow", {"workflow_type": "../../etc/passwd"}, "workflow_type: Input should be"),
        ("get_alive_super_template", {"id": "../server"}, "id: String should match pattern"),
        ("get_alive_super_template", {"id": "a" * 101}, "id: String should have at most 100"),
        ("get_alive_super_template", {"id": "\u0430-cyrillic"}, "id: String should match pattern"),
        ("get_alive_super_template", {"id": "unknown"}, "There are: blog, contact-form, landing-page"),
        ("read_server_logs", {"workspace": SITE, "lines": 0}, "lines: Input should be greater than or equal to 1"),
        ("read_server_logs", {"workspace": SITE, "lines": 1001}, "lines: Input should be less than or equal to 1000"),
        ("read_server_logs", {"workspace": SITE, "lines": "many"}, "lines: Input should be a valid integer"),
        ("read_server_logs", {"workspace": SITE, "lines": 1e400}, "lines:"),
        ("read_server_logs", {"workspace": "SITE; rm -rf /"}, "workspace: String should match pattern"),
        ("read_server_logs", {"workspace": ["a"]}, "workspace: Input should be a valid string"),
        ("read_server_logs", {"workspace": "victim.example"}, f"You work on '{SITE}'"),
        ("read_server_logs", {"workspace": SITE, "search_regex": "("}, "search_regex is no regular expression"),
        ("read_server_logs", {"workspace": SITE, "search": LONG}, "search: String should have at most 200"),
        ("read_server_logs", {"workspace": SITE, "since": "$(reboot)"}, "since: String should match pattern"),
        ("debug_workspace", {"workspace": SITE, "lines": -1}, "lines: Input should be greater"),
        ("generate_persona", {"query": "", "style_preferences": "x"}, "query: String should have at least 1"),
        ("generate_persona", {"query": LONG, "style_preferences": "x"}, "query: String should have at most 5000"),
        ("ask_clarification", {"questions": []}, "questions: List should have at least 1 item"),
        ("ask_clarification", {"questions": [QUESTION] * 4}, "questions: List should have at most 3 items"),
        ("ask_clarification", {"questions": [{**QUESTION, "options": []}]}, "questions.0.options: List should have"),
        ("ask_clarification", {"questions": [{**QUESTION, "id": "a b"}]}, "questions.0.id: String should match"),
        ("ask_clarification", {"questions": [QUESTION, QUESTION]}, "an id of its own"),
        ("ask_clarification", {"questions": "what?"}, "questions: Input should be a valid list"),
        ("ask_website_config", {"defaultSlug": "A!"}, "defaultSlug: String should match"),
        ("ask_automation_config", {}, "no website yet"),
        ("no_such_tool", {}, "Unknown tool: no_such_tool"),
    ],
    "workspace": [
        ("restart_dev_server", {"force": True}, "has no parameter 'force'; it takes none"),
        ("install_package", {"packageName": "zod; reboot"}, "packageName: String should match pattern"),
        ("install_package", {"packageName": "--global"}, "packageName: String should match pattern"),
        ("install_package", {"packageName": "../../x"}, "packageName: String should match pattern"),
        ("install_package", {"packageName": "a" * 215}, "packageName: String should have at most 214"),
        ("install_package", {"packageName": "zod", "version": "file:/etc"}, "version: String should match pattern"),
        ("install_package", {"packageName": "zod", "version": "git+ssh://x"}, "version: String should match pattern"),
        ("install_package", {"packageName": "zod"}, "network policy of this workspace is closed"),
        ("check_codebase", {}, "package.json is not there"),
        ("delete_file", {"path": "../victim.example/x"}, "must not have '..'"),
        ("delete_file", {"path": "/etc/passwd"}, "Only files of the workspace"),
        ("delete_file", {"path": "."}, "The workspace itself"),
        ("delete_file", {"path": "a\0b"}, "no path"),
        ("delete_file", {"path": LONG}, "no path"),
        ("delete_file", {"path": "x", "recursive": "perhaps"}, "recursive: Input should be a valid boolean"),
        ("delete_file", {"path": "not-there"}, "not-there is not there"),
        ("switch_serve_mode", {"mode": "production"}, "mode: Input should be 'dev' or 'build'"),
        ("switch_serve_mode", {"mode": "build"}, "nothing to build"),
        ("copy_shared_asset", {"asset": "../../../etc"}, "asset: String should match pattern"),
        ("copy_shared_asset", {"asset": "fonts/none"}, "There are: icons/arrows, images/placeholder"),
        ("copy_shared_asset", {"asset": "icons/arrows", "dest": "../x"}, "must not have '..'"),
        ("create_website", {"slug": "ab"}, "slug: String should have at least 3"),
        ("create_website", {"slug": "a" * 17}, "slug: String should have at most 16"),
        ("create_website", {"slug": "Ab_c"}, "slug: String should match pattern"),
        ("create_website", {"slug": "abc", "siteIdeas": LONG}, "siteIdeas: String should have at most 5000"),
        ("create_website", {"slug": "abc", "templateId": "other"}, "templateId: String should match pattern"),
        ("read", {"file_path": "../../etc/passwd"}, "must not have '..'"),
        ("read", {"file_path": "a.txt", "offset": 0}, "offset: Input should be greater"),
        ("read", {"file_path": "a.txt", "offset": 99}, "there is no line 99"),
        ("read", {"file_path": "binary"}, "is no text"),
        ("write", {"file_path": "a.txt", "content": "x" * (1 << 20) + "x"}, "content: String should have at most"),
        ("write", {"file_path": ".git/hooks/pre-commit", "content": "x"}, "Use git itself"),
        ("write", {"file_path": f"{'d' * 300}/x", "content": "x"}, "has too long a name"),
        ("write", {"file_path": "a.txt/x", "content": "x"}, "is no directory"),
        ("edit", {"file_path": "a.txt", "old_string": "nothing", "new_string": "x"}, "has no such text"),
        ("edit", {"file_path": "a.txt", "old_string": "a", "new_string": "a"}, "are the same"),
        ("glob", {"pattern": ""}, "pattern: String should have at least 1"),
        ("grep", {"pattern": "("}, "pattern is no regular expression"),
        ("grep", {"pattern": "a{1,99999999999}"}, "pattern is no regular expression"),
        ("grep", {"pattern": "x", "max_results": 201}, "max_results: Input should be less"),
        ("grep", {"pattern": "x", "path": "/etc"}, "Only files of the workspace"),
        ("list", {"path": "a.txt"}, "is no directory"),
    ],
    "email": [
        ("send_reply", {}, "text: Field required"),
        ("send_reply", {"text": ""}, "text: String should have at least 1"),
        ("send_reply", {"text": LONG}, "text: String should have at most 50000"),
        ("send_reply", {"text": {"x": 1}}, "text: Input should be a valid string"),
        ("send_reply", {"text": "x", "to": "everybody"}, "has no parameter 'to'"),
        ("read_email", {}, "no mail has started this"),
    ],
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_arguments_are_answered_in_words(world: World, name: str) -> None:
    """One after the other, of one server; nothing of it reaches the product that it would not do anyway."""
    world.file("a.txt", "a\n")
    world.file("binary").write_bytes(b"\xff\xfe\0")
    environment = {**world.environment, "ALIVE_FILE_TOOLS": "1"}
    async with serving(name, environment) as server:
        for tool, arguments, why in WRONG[name]:
            said = await server.refused(tool, arguments)
            assert why in said, (tool, str(arguments)[:100], said)
            assert len(said) < 1500, said
            assert "Traceback" not in said
        assert (await server.session.list_tools()).tools

    assert world.product.sites.modes == {}
    assert world.product.sites.hostnames == []


async def _answering(status: int, body: str) -> web.Response:
    return web.Response(status=status, text=body, content_type="application/json")


async def _dropping() -> web.Response:
    raise web.HTTPInternalServerError


async def _huge() -> web.Response:
    return web.Response(text='{"lines": ["' + "x" * (5 << 20) + '"]}')


FAULTS = [
    (lambda: _answering(401, ""), "does not accept this turn"),
    (
        lambda: _answering(403, '{"error": "no"}'),
        "The user may not do this, or their session has ended. Tell them; do not",
    ),
    (lambda: _answering(404, '{"error": "no such site"}'), "The product does not know it: no such site."),
    (lambda: _answering(418, "{}"), "The product refused it (418)."),
    (lambda: _answering(429, "{}"), "Wait a while"),
    (lambda: _answering(500, "<html>"), "The product failed (500). Try once more"),
    (lambda: _answering(302, ""), "The product refused it (302)"),
    (lambda: _answering(200, "<html>"), "makes no sense"),
    (lambda: _answering(200, "[1]"), "makes no sense"),
    (lambda: _answering(200, '{"lines": 3}'), "makes no sense"),
    (lambda: _answering(200, '{"lines": ["\\ud800"]}'), "makes no sense"),
    (_dropping, "The product failed (500)"),
    (_huge, "more than can be read"),
]


async def test_a_product_that_fails_is_explained(world: World) -> None:
    """However it fails; once it works again so does the tool."""
    async with serving("tools", world.environment) as tools:
        for fault, why in FAULTS:
            world.product.faults[SLOW] = fault
            said = await tools.refused("read_server_logs", {"workspace": SITE})
            assert why in said, said
        world.product.faults.clear()
        world.product.sites.log(SITE, "back again")

        assert text(await tools.call("read_server_logs", {"workspace": SITE})) == "back again"


async def test_a_product_that_is_slow_is_explained(world: World) -> None:
    """It may have done what it was asked."""

    async def wait() -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    world.product.faults["/api/sites"] = wait
    with pytest.raises(Refused, match=r"did not answer within 0 s\. It may or may not have done it"):
        await product.call(world.context(), "GET", "/api/sites", seconds=0.2)


async def test_a_product_that_is_down_is_explained(world: World) -> None:
    """It cannot be reached."""
    async with serving("tools", {**world.environment, "ALIVE_API_URL": "http://127.0.0.1:9"}) as server:
        down = await server.refused("read_server_logs", {"workspace": SITE})

    assert "The product cannot be reached. Try once more" in down


async def test_a_result_is_cut_and_can_be_sent(world: World) -> None:
    """Whatever was logged: too many lines, too long ones, what is no text."""
    world.product.sites.log(SITE, "\x1b[31mred\x07" + "y" * 20_000)
    async with serving("tools", world.environment) as tools:
        said = text(await tools.call("read_server_logs", {"workspace": SITE}))

    assert said.startswith("\\x1b[31mred\\x07y")
    assert len(said) < 8_200
    assert "[cut: " in said


async def test_names_that_are_no_unicode_can_be_listed(world: World) -> None:
    """Names are bytes; the protocol is not."""
    (world.workspace / b"caf\xe9.txt".decode(errors="surrogateescape")).write_text("here")
    async with serving("workspace", {**world.environment, "ALIVE_FILE_TOOLS": "1"}) as server:
        listed = text(await server.call("list", {}))
        found = text(await server.call("grep", {"pattern": "here"}))

    assert listed == "caf?.txt"
    assert found == "caf?.txt:1:here"


async def test_many_calls_at_once_are_answered(world: World) -> None:
    """Each with its own answer."""
    async with serving("tools", world.environment) as tools:
        results = await asyncio.gather(
            *(tools.call("get_alive_super_template", {"id": name}) for name in ["blog", "x"] * 20)
        )

    assert [result.is_error for result in results] == [False, True] * 20
