"""What must not be in the repository."""

import re
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
FORBIDDEN = re.compile(rb"sk-ant-[a-z0-9]|sk-proj-|BEGIN [A-Z ]*PRIVATE KEY|file:///|--index-url http|--find-links /")


def test_no_key_and_no_address_of_a_package_index_is_committed() -> None:
    """Neither in sources nor in pinned requirements."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, timeout=30)
    names = [name for name in listed.stdout.decode().split("\0") if name and name != Path(__file__).name]
    guilty = [
        name
        for name in names
        if (path := CHECKOUT / name).is_file()
        and not name.startswith("tests/architecture/")
        and FORBIDDEN.search(path.read_bytes())
    ]
    assert guilty == []
