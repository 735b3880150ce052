"""Writes unified diffs of files that a vendor describes in other ways."""

from collections.abc import Iterable


def changed_file(path: str, hunks: str) -> str:
    """Return the diff of a file from its hunks."""
    return f"--- a/{path}\n+++ b/{path}\n{_ended(hunks)}" if hunks else ""


def new_file(path: str, content: str) -> str:
    """Return the diff that makes a file."""
    return _whole_file("/dev/null", f"b/{path}", content, sign="+")


def deleted_file(path: str, content: str) -> str:
    """Return the diff that deletes a file."""
    return _whole_file(f"a/{path}", "/dev/null", content, sign="-")


def _whole_file(old: str, new: str, content: str, *, sign: str) -> str:
    lines = content.splitlines(keepends=True)
    if not lines:
        return ""
    span = f"1,{len(lines)}"
    ranges = f"-0,0 +{span}" if sign == "+" else f"-{span} +0,0"
    return f"--- {old}\n+++ {new}\n@@ {ranges} @@\n" + "".join(_signed(lines, sign))


def _signed(lines: Iterable[str], sign: str) -> Iterable[str]:
    for line in lines:
        yield f"{sign}{line}" if line.endswith("\n") else f"{sign}{line}\n\\ No newline at end of file\n"


def _ended(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"
