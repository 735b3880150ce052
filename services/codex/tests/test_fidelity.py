"""The table of fidelity names all that the CLI itself says it can say."""

import json
import subprocess
from pathlib import Path

import codex_cli_bin
import pytest

from alive_codex.fidelity import rows


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory with the schema of the app-server, as the installed CLI writes it."""
    directory = tmp_path_factory.mktemp("schema")
    command = [str(codex_cli_bin.bundled_codex_path()), "app-server", "generate-json-schema", "--out", str(directory)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "CODEX_HOME": str(directory)}
    subprocess.run(command, env=environment, check=True, capture_output=True)  # Our own words.
    return directory


@pytest.mark.parametrize(
    ("file", "kind"), [("ServerRequest.json", "server request"), ("ServerNotification.json", "notification")]
)
def test_everything_that_the_cli_can_say_has_a_row(schema: Path, file: str, kind: str) -> None:
    """Or an upgrade has brought something new."""
    variants = json.loads((schema / file).read_text())["oneOf"]
    said = {method for variant in variants for method in variant["properties"]["method"]["enum"]}
    named = {name for row, name, _ in rows() if row == kind}

    assert said
    assert said - named == set()
