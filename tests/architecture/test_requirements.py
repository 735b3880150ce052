"""Requirements and tests are tied both ways."""

import ast
from pathlib import Path

from alive_kit.testing.requirements import REQUIREMENTS

SUITE = Path(__file__).parents[1] / "conformance"


def tied() -> dict[str, list[str]]:
    """Return the requirements of each test of the suite."""
    found = {}
    for path in SUITE.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_"):
                calls = [call for call in node.decorator_list if isinstance(call, ast.Call)]
                named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "requirement"]
                found[f"{path.name}::{node.name}"] = [ast.literal_eval(call.args[0]) for call in named]
    return found


def test_every_requirement_has_a_test() -> None:
    """A requirement nobody proves is a wish."""
    assert set(REQUIREMENTS) - {name for names in tied().values() for name in names} == set()


def test_every_test_of_the_suite_proves_a_requirement() -> None:
    """And names one that exists."""
    assert [test for test, names in tied().items() if not names or set(names) - set(REQUIREMENTS)] == []
