"""Prints what becomes of everything each vendor can say: ``python -m alive_kit.testing.fidelity``."""

from collections.abc import Iterator
from importlib.metadata import entry_points

from alive_kit.fidelity import UNASKED

UNKNOWN = "notice unknown_vendor_event"


def table() -> Iterator[str]:
    """Yield the lines of the table, as Markdown."""
    yield "# Fidelity"
    yield ""
    yield "What becomes of everything that the installed SDKs can say. Made by `make fidelity`; a test compares."
    yield "Nothing is dropped silently: what has no place of its own is a notice."
    yield "So is what comes only to those who ask for it, if it comes."
    for entry in sorted(entry_points(group="alive.fidelity"), key=lambda entry: entry.name):
        rows = list(entry.load()())
        yield from ("", f"## {entry.name}", "", "| kind | in the vendor's words | becomes |", "|---|---|---|")
        yield from (f"| {kind} | `{name}` | {becomes or UNKNOWN} |" for kind, name, becomes in rows)
        unasked = sum(becomes.startswith(UNASKED) for _, _, becomes in rows)
        mapped = sum(bool(becomes) for _, _, becomes in rows) - unasked
        counted = f"{mapped} of {len(rows)} have a place of their own, {unasked} come only of what is not asked for."
        yield from ("", f"{entry.name}: {counted}")


if __name__ == "__main__":
    print("\n".join(table()))
