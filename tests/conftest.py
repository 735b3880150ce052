"""The table of what came of each attack."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from .attacks.attacks import OPEN

ROWS: list[tuple[str, str, str, str, str, str]] = []


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return what writes a row of the table; the result is that of the test."""
    written: list[tuple[str, str, str, str, str]] = []
    yield lambda *columns: written.append(columns)
    failed = request.node.stash.get(FAILED, False)
    ROWS.extend((*columns[:4], "WON" if failed else "blocked", columns[4]) for columns in written)


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Remember for `row` how a test ended."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table where it is asked for: `make attack`."""
    if not ROWS or not os.environ.get("ALIVE_ATTACK_TABLE"):
        return
    terminalreporter.section("attacks")
    terminalreporter.line("| attack | tried | provider | where, and by what way | result | by what |")
    terminalreporter.line("|---|---|---|---|---|---|")
    everywhere = [(name, tried, "both", "everywhere", "open", why) for name, tried, why in OPEN]
    for row in [*sorted(ROWS), *everywhere]:
        terminalreporter.line("| " + " | ".join(row) + " |")
