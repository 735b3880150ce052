"""Runs every benchmark and says how we compare: ``make bench``, or ``make bench SHORT=1``.

A benchmark is a module of this package with ``async def measure(*, short: bool) -> list[Row]``. The rows become one
table and ``build/bench.json``. Ratios are compared with ``expected.json``, what they were when that was committed: one
that is worse by more than its tolerance ends with exit code 1. ``make bench EXPECT=1`` writes that file anew, from what
it measures; with ``ONLY`` the rest of it stays.
"""

import asyncio
import importlib
import json
import logging
import math
import os
import pkgutil
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .row import Row

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
_EXPECTED = HERE / "expected.json"
_BROKEN: list[str] = []
"""The benchmarks that ended with an error."""
TOLERANCE = 2.0
"""How many times worse than expected a ratio may be: the machine is not quiet, and nothing here is pinned to it."""


def main() -> None:
    """Run, print, write, compare."""
    logging.disable()  # Much of it breaks things on purpose.
    short = bool(os.environ.get("SHORT"))
    rows = list(_run(short=short))
    for line in _table(rows):
        print(line)
    out = CHECKOUT / "build" / "bench.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps([_plain(row) for row in rows], indent=1) + "\n")
    expected: dict[str, float] = json.loads(_EXPECTED.read_text())
    if os.environ.get("EXPECT"):
        expected = expected if sys.argv[1:] else {}  # Rows of the same name in both forms: either may write it.
        expected.update({_key(row): float(f"{row.ratio:.2g}") for row in rows if not math.isnan(row.ratio)})
        _EXPECTED.write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")
    if unknown := [_key(row) for row in rows if _key(row) not in expected and not math.isnan(row.ratio)]:
        print("\nnot expected to be anything (make bench EXPECT=1):", *unknown, sep="\n  ")
    if _BROKEN:
        print("\nbroken:", *_BROKEN)
    if worse := list(_worse(rows, expected)):
        print("\nworse than expected (tests/bench/expected.json):", *worse, sep="\n  ")
    if worse or _BROKEN:
        sys.exit(1)


def _run(*, short: bool) -> Iterator[Row]:
    wanted = sys.argv[1:]
    for found in pkgutil.iter_modules([str(HERE)]):
        if found.name == "__main__" or (wanted and found.name not in wanted):
            continue
        module = importlib.import_module(f"{__package__}.{found.name}")
        if hasattr(module, "measure"):
            began = time.monotonic()
            try:
                yield from asyncio.run(module.measure(short=short))
            except Exception:  # noqa: BLE001  # The others are measured; this one is said, and fails the run.
                traceback.print_exc()
                _BROKEN.append(found.name)
            print(f"{found.name}: {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)


def _table(rows: list[Row]) -> Iterator[str]:
    yield "| what | ours | rival | ratio | spread | goal | against |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        sign = "≥" if row.more_is_better else "≤"
        goal = "" if row.goal is None else f"{sign} {row.goal:g}{'' if _meets(row) else ' (missed)'}"
        spread = f"{row.spread[0]:.2f}-{row.spread[1]:.2f}"
        numbers = f"{row.ours:.4g} | {row.rival:.4g} | {row.ratio:.2f} | {spread}"
        if math.isnan(row.ratio):
            numbers = "- | - | - | -"
        yield f"| {row.name} | {numbers} | {goal} | {row.rival_name} |"


def _meets(row: Row) -> bool:
    return row.goal is None or (row.ratio >= row.goal if row.more_is_better else row.ratio <= row.goal)


def _worse(rows: list[Row], expected: dict[str, float]) -> Iterator[str]:
    for row in rows:
        known = expected.get(_key(row))
        if known is None or math.isnan(row.ratio):
            continue
        bound = known / TOLERANCE if row.more_is_better else max(known * TOLERANCE, row.goal or 0.0)
        if row.ratio < bound if row.more_is_better else row.ratio > bound:
            yield f"{_key(row)}: {row.ratio:.2f}, expected {known:.2f}"


def _key(row: Row) -> str:
    return f"{row.name} / {row.rival_name}"


def _plain(row: Row) -> dict[str, Any]:
    """Return a row for JSON, which has no word for what is not a number."""
    values = asdict(row)
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


if __name__ == "__main__":
    main()
