"""The contract, its stubs and its released image."""

import filecmp
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PROTOS = CHECKOUT / "protos"


def test_the_stubs_are_fresh(tmp_path: Path) -> None:
    """Generating them again gives the same files."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("alive/agent/v1/*.proto"))
    outputs = [
        f"--{kind}={option}{tmp_path}"
        for kind, option in (
            ("python_out", ""),
            ("grpc_python_out", ""),
            ("mypy_out", "quiet:"),
            ("mypy_grpc_out", "quiet:"),
        )
    ]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *outputs, *sources]
    subprocess.run(command, cwd=PROTOS, env=environment, check=True, timeout=60)
    fresh = tmp_path / "alive/agent/v1"
    kept = PROTOS / "gen/alive/agent/v1"

    names = {path.name for path in fresh.iterdir() if "_grpc" not in path.name or "_service_pb2_grpc" in path.name}
    assert names == {path.name for path in kept.iterdir() if path.is_file()}
    assert filecmp.cmpfiles(fresh, kept, names, shallow=False)[1:] == ([], [])


@pytest.mark.parametrize("path", sorted(PROTOS.glob("alive/agent/v1/*.proto")), ids=lambda path: path.name)
def test_responses_that_are_concatenated_hold_one_field(path: Path) -> None:
    """StartTurnResponse and WatchTurnResponse hold events and nothing else, for ever."""
    text = path.read_text()
    for name in ("StartTurnResponse", "WatchTurnResponse"):
        if f"message {name} {{" in text:
            body = text.split(f"message {name} {{")[1].split("}")[0]
            fields = [line.strip() for line in body.splitlines() if line.strip() and not line.strip().startswith("//")]
            assert fields == ["repeated Event events = 1;"]
