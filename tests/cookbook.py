"""The calls of docs/cookbook.md, which every deployment answers alike."""

import re
from collections.abc import Iterator
from pathlib import Path

_PAGE = Path(__file__).parents[1] / "docs" / "cookbook.md"


def recipes() -> Iterator[tuple[str, str]]:
    """Yield the arguments of each call, after ``-plaintext``, with the code that it ends with."""
    for block in re.findall(r"```console\n(.*?)```", _PAGE.read_text(), re.DOTALL):
        command, _, answer = block.removeprefix("$ ").replace("\\\n", " ").partition("\n")
        if command.startswith("grpcurl"):
            code = re.search(r"Code: (\w+)", answer)
            yield command.removeprefix("grpcurl -plaintext "), code[1] if code else "OK"


def code_of(said: str) -> str:
    """Return the code that grpcurl says a call ended with."""
    found = re.search(r"Code: (\w+)", said)
    return found[1] if found else "OK"
