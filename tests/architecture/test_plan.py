"""The page about the original plan names tests that exist."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
ROW = re.compile(r"^\| ([A-Z]\d+) \|.*\| `(test_\w+)` \|$")


def rows() -> dict[str, str]:
    """Return the test of each row."""
    lines = (CHECKOUT / "docs/plan.md").read_text().splitlines()
    found = [match for match in map(ROW.match, lines) if match]
    assert len(found) == sum(bool(re.match(r"\| [A-Z]\d+ ", line)) for line in lines)
    return {match[1]: match[2] for match in found}


def test_every_row_of_the_plan_is_there() -> None:
    """31 scenarios, 7 verifications, 6 pre-flight tests; questions beside them."""
    letters = [row[0] for row in rows()]
    assert sum(letters.count(letter) for letter in "ABCDEF") == 31
    assert (letters.count("R"), letters.count("P")) == (7, 6)


def test_every_test_that_the_page_names_exists() -> None:
    """Or the row proves nothing."""
    sources = [path.read_text() for path in CHECKOUT.glob("**/test_*.py") if "build" not in path.parts]
    defined = {name for source in sources for name in re.findall(r"^(?:async )?def (test_\w+)", source, re.MULTILINE)}
    assert set(rows().values()) - defined == set()
