"""Checks that what a request points at in the workspace is there."""

from collections.abc import Iterator
from pathlib import Path

from alive.agent.v1 import agent_service_pb2
from alive_kit.errors import InvalidField
from alive_kit.validation import IMAGE_BYTES, is_image
from alive_kit.workspaces import Workspace


def check_files(request: agent_service_pb2.StartTurnRequest, workspace: Workspace) -> None:
    """Refuse inputs whose file is missing, outside the workspace, or not what it should be.

    Raises:
        InvalidField: names every such input.
    """
    violations = dict(_violations(request, workspace))
    if violations:
        raise InvalidField(violations)


def _violations(
    request: agent_service_pb2.StartTurnRequest, workspace: Workspace
) -> Iterator[tuple[str, str]]:
    for index, part in enumerate(request.input):
        if part.HasField("file"):
            yield from _file(f"input[{index}].file.path", workspace.path, part.file.path)
        elif part.HasField("image") and part.image.WhichOneof("source") == "path":
            field = f"input[{index}].image.path"
            complaints = list(_file(field, workspace.path, part.image.path))
            yield from complaints or _image(field, workspace.path / part.image.path)


def _file(field: str, root: Path, path: str) -> Iterator[tuple[str, str]]:
    found = (root / path).resolve()
    if not found.is_relative_to(root.resolve()):
        yield (field, "leads outside the workspace")
    elif not found.is_file():
        yield (field, f"the workspace has no file {path!r}")


def _image(field: str, path: Path) -> Iterator[tuple[str, str]]:
    if path.stat().st_size > IMAGE_BYTES:
        yield (field, f"is over {IMAGE_BYTES} bytes")
        return
    with path.open("rb") as image:
        if not is_image(image.read(16)):
            yield (field, "is not a PNG, JPEG, GIF or WebP image")
