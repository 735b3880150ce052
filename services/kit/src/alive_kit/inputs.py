"""Reads what a request points at in the workspace, and checks that it is there."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from alive.agent.v1 import agent_service_pb2, options_pb2
from alive_kit.errors import InvalidField
from alive_kit.validation import IMAGE_BYTES, image_type
from alive_kit.workspaces import Workspace

INSTRUCTION_FILES = ("AGENTS.md", "CLAUDE.md")
"""Files in which a workspace instructs agents, whichever vendor's."""

INSTRUCTION_BYTES = 64 << 10
"""How much of such a file is read."""

WithInput: TypeAlias = agent_service_pb2.StartTurnRequest | agent_service_pb2.SteerTurnRequest


def check_files(request: WithInput, workspace: Workspace) -> None:
    """Refuse inputs whose file is missing, outside the workspace, or not what it should be.

    Raises:
        InvalidField: names every such input.
    """
    violations = dict(_violations(request, workspace))
    if violations:
        raise InvalidField(violations)


def _violations(request: WithInput, workspace: Workspace) -> Iterator[tuple[str, str]]:
    for index, part in enumerate(request.input):
        if part.HasField("file"):
            yield from _file(f"input[{index}].file.path", workspace.path, part.file.path)
        elif part.HasField("image") and part.image.WhichOneof("source") == "path":
            field = f"input[{index}].image.path"
            complaints = list(_file(field, workspace.path, part.image.path))
            yield from complaints or _image(field, workspace.path / part.image.path)


def _file(field: str, root: Path, path: str) -> Iterator[tuple[str, str]]:
    try:
        found = (root / path).resolve()
        if not found.is_relative_to(root.resolve()):
            yield (field, "leads outside the workspace")
        elif not found.is_file():
            yield (field, f"the workspace has no file {path!r}")
        else:
            with found.open("rb"):
                pass
    except OSError as error:  # An agent owns its workspace, and may take its service's rights away.
        yield (field, f"{path!r} cannot be read ({error.strerror}): give the group alive-workspaces its rights back")


def _image(field: str, path: Path) -> Iterator[tuple[str, str]]:
    if path.stat().st_size > IMAGE_BYTES:
        yield (field, f"is over {IMAGE_BYTES} bytes")
        return
    with path.open("rb") as image:
        if not image_type(image.read(16)):
            yield (field, "is not a PNG, JPEG, GIF or WebP image")


def read_image(image: options_pb2.ImageInput, workspace: Workspace) -> bytes:
    """Return the bytes of an image that was checked."""
    return image.data or (workspace.path / image.path).read_bytes()


def read_instructions(workspace: Workspace) -> str:
    """Return what the workspace's instruction files say, one after the other.

    The vendors' own way would also load hooks, MCP servers and settings of the workspace, so the files are read here.
    """
    texts = (_read_instructions(workspace.path / name) for name in INSTRUCTION_FILES)
    return "\n\n".join(text for text in texts if text)


def _read_instructions(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return file.read(INSTRUCTION_BYTES).decode(errors="replace").strip()
