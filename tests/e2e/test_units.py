"""The systemd units: what the stack runs, as systemd would run it."""

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import BOUND, CHECKOUT, VENVS, needs_root

pytestmark = [
    needs_root,
    pytest.mark.skipif(
        not shutil.which("systemd-analyze"), reason="systemd-analyze is missing: apt-get install systemd"
    ),
]

SERVICES = {
    "alive-router": 43001,
    "alive-edge": 43006,
    "alive-gateway": 43005,
    "alive-claude": 43002,
    "alive-codex": 43003,
    "alive-claude-launcher": 0,
    "alive-codex-launcher": 0,
}


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the units of a host with keys for both vendors."""
    directory = tmp_path_factory.mktemp("host")
    for parent in (directory, directory.parent, directory.parent.parent):
        parent.chmod(0o711)
    (directory / "key").write_text("canary-key")
    variables = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "ALIVE_STATE_DIR": str(directory / "state"),
        "ALIVE_ANTHROPIC_API_KEY_FILE": str(directory / "key"),
        "ALIVE_OPENAI_API_KEY_FILE": str(directory / "key"),
        "ALIVE_DEFAULT_PROVIDER": "codex",
        "ALIVE_EDGE": "true",
    }
    command = [str(VENVS / "stack/bin/alive-stack"), "--checkout", str(CHECKOUT), "units", "--venvs", str(VENVS)]
    done = subprocess.run(
        [*command, str(directory / "units")], env=variables, capture_output=True, text=True, check=False, timeout=BOUND
    )
    assert done.returncode == 0, done.stderr
    return directory / "units"


def test_systemd_accepts_them(units: Path) -> None:
    """Every one, without a warning."""
    files = sorted(map(str, units.iterdir()))
    done = subprocess.run(
        ["systemd-analyze", "verify", *files],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
    )

    assert done.returncode == 0, done.stderr
    assert "alive" not in done.stderr


@pytest.mark.parametrize(("name", "uid"), SERVICES.items())
def test_each_service_has_its_walls(units: Path, name: str, uid: int) -> None:
    """Its UID, no capabilities but the launcher's three, no new privileges, a limit on memory and processes."""
    service = read(units / f"{name}.service")["Service"]

    assert service["User"] == service["Group"] == str(uid)
    assert service["CapabilityBoundingSet"] == ("" if uid else "CAP_SETUID CAP_SETGID CAP_KILL")
    assert (service["NoNewPrivileges"], service["ProtectSystem"]) == ("yes", "strict")
    assert service["MemoryMax"]
    assert service["TasksMax"]


def test_no_unit_holds_a_key(units: Path) -> None:
    """The gateway has a copy that it alone can read; a replaced key is handed over anew."""
    copy = units.parent / "state/secrets/gateway/codex"

    assert not [path for path in units.iterdir() if "canary" in path.read_text()]
    assert (copy.stat().st_uid, copy.stat().st_mode & 0o777, copy.read_text()) == (43005, 0o400, "canary-key")
    assert str(units.parent / "key") in (units / "alive-prepare.path").read_text()


def read(path: Path) -> configparser.ConfigParser:
    """Read a unit; of a setting that is there several times the last counts."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    parser.read(path)
    return parser
