"""The report of the drills."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return an empty directory of the test's own."""
    with tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what each drill came to where it is asked for: `make drill`."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    drills = [report for report in reports if report.when == "call" and "/drills/" in report.nodeid]
    if not drills or os.environ.get("ALIVE_DRILLS") != "all":
        return
    terminalreporter.section("drills")
    terminalreporter.line("| provider, what failed, while it was | survived | the turn ended |")
    terminalreporter.line("|---|---|---|")
    for report in drills:
        row = report.nodeid.rpartition("[")[2].rstrip("]")
        end = dict(report.user_properties).get("end", "")
        terminalreporter.line(f"| {row} | {'yes' if report.passed else 'NO'} | {end} |")
    terminalreporter.line(f"survived {sum(report.passed for report in drills)} of {len(drills)}")
