"""Turns the input of a turn into the message that Claude Code reads."""

import base64
from collections.abc import AsyncIterator, Iterable
from typing import Any

from alive.agent.v1 import options_pb2
from alive_kit.inputs import read_image
from alive_kit.provider import TurnSpec
from alive_kit.validation import image_type


async def user_message(
    parts: Iterable[options_pb2.InputPart], spec: TurnSpec, message_id: str = ""
) -> AsyncIterator[dict[str, Any]]:
    """Yield input as one message; the CLI says what becomes of one that has an id."""
    content = [_block(part, spec) for part in parts]
    named = {"uuid": message_id} if message_id else {}
    yield {"type": "user", "message": {"role": "user", "content": content}, "parent_tool_use_id": None, **named}


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
