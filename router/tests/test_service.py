"""The router's process."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"ALIVE_STATE_DIR": "/proc/nowhere"}, "ALIVE_STATE_DIR"),
        ({"ALIVE_DATABASE_URL": "postgresql+asyncpg://alive@127.0.0.1:1/none"}, "ALIVE_DATABASE_URL"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_store_that_cannot_be_used_is_one_line_and_exit_code_2(
    tmp_path: Path, variables: dict[str, str], name: str
) -> None:
    """With the setting to look at."""
    common = {
        "ALIVE_LISTEN": f"unix:{tmp_path}/router.sock",
        "ALIVE_PROVIDERS": f"red=unix:{tmp_path}/red.sock",
        "ALIVE_WORKSPACES": str(tmp_path),
        "ALIVE_STATE_DIR": str(tmp_path / "made"),
    }
    ended = subprocess.run(  # Our own words.
        [sys.executable, "-m", "alive_router"], env={**common, **variables}, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{name}: the store cannot be used (")
    assert len(ended.stderr.splitlines()) == 1
