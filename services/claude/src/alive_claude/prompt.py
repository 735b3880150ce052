"""Turns the input of a turn into the message that Claude Code reads."""

import base64
from collections.abc import AsyncIterator
from typing import Any

from alive.agent.v1 import options_pb2
from alive_kit.inputs import read_image
from alive_kit.provider import TurnSpec
from alive_kit.validation import image_type


async def user_message(spec: TurnSpec) -> AsyncIterator[dict[str, Any]]:
    """Yield the one message of a turn."""
    content = [_block(part, spec) for part in spec.input]
    yield {"type": "user", "message": {"role": "user", "content": content}, "parent_tool_use_id": None}


def _block(part: options_pb2.InputPart, spec: TurnSpec) -> dict[str, Any]:
    match part.WhichOneof("content"):
        case "image":
            data = read_image(part.image, spec.workspace)
            source = {"type": "base64", "media_type": image_type(data), "data": base64.b64encode(data).decode()}
            return {"type": "image", "source": source}
        case "file":
            return {"type": "text", "text": f"Look at the file {part.file.path}."}
        case _:
            return {"type": "text", "text": part.text}
