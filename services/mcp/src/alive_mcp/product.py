"""Calls the product's API: whatever needs more rights than a workspace has is done there.

The product learns for whom a call is from the gateway, never from what a tool sends.
"""

from collections.abc import Mapping
from typing import TypeAlias, TypeVar

import anyio
import httpx2
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import from_json

from alive_mcp.context import Context
from alive_mcp.errors import Refused

Answer: TypeAlias = Mapping[str, JsonValue]
Understood = TypeVar("Understood", bound=BaseModel)

SECONDS = 60.0
"""How long the product may take unless a tool says otherwise."""

_ANSWER_BYTES = 4 << 20
_SAID_CHARACTERS = 500

_NONSENSE = "The product's answer makes no sense. Tell the user that it is broken; do not try again."

_MEANINGS = {
    401: "The product does not accept this turn. Its user has to sign in again; tell them, and do not try again",
    403: "The user may not do this, or their session has ended. Tell them; do not try again",
    404: "The product does not know it",
    409: "It cannot be done as things are now",
    413: "It is too much at once. Try something smaller",
    429: "It was tried too often. Wait a while before you try again",
}


async def call(
    context: Context, method: str, path: str, body: Mapping[str, JsonValue] | None = None, *, seconds: float = SECONDS
) -> Answer:
    """Call the product and return what it answers.

    Raises:
        Refused: it cannot be reached, takes too long, refuses, fails, or makes no sense.
    """
    try:
        with anyio.fail_after(seconds):
            return _understood(*await _exchange(context, method, path, body))
    except TimeoutError:
        raise Refused(
            f"The product did not answer within {seconds:.0f} s. "
            "It may or may not have done it: look before you try again."
        ) from None
    except httpx2.HTTPError:
        raise Refused(
            "The product cannot be reached. Try once more in a moment; if that fails too, tell the user."
        ) from None


async def _exchange(
    context: Context, method: str, path: str, body: Mapping[str, JsonValue] | None
) -> tuple[int, bytes]:
    # A certificate is only ever looked at where there is no gateway; reading the authorities takes a while.
    verify = context.api_url.startswith("https://")
    content = b""
    async with (
        httpx2.AsyncClient(headers=context.headers, timeout=None, trust_env=False, verify=verify) as client,
        client.stream(method, f"{context.api_url}{path}", json=body) as response,
    ):
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > _ANSWER_BYTES:
                raise Refused("The product answered more than can be read. Ask for less.")
        return response.status_code, content


def _understood(status: int, content: bytes) -> Answer:
    try:
        answer = from_json(content) if content else {}
    except ValueError:
        answer = None
    if not 200 <= status < 300:
        raise Refused(_refusal(status, answer))
    if not isinstance(answer, dict):
        raise Refused(_NONSENSE)
    return answer


def _refusal(status: int, answer: object) -> str:
    meaning = _MEANINGS.get(status)
    if meaning is None and status >= 500:
        meaning = f"The product failed ({status}). Try once more in a moment; if that fails too, tell the user"
    said = answer.get("error") or answer.get("message") if isinstance(answer, dict) else ""
    words = f": {str(said)[:_SAID_CHARACTERS]}" if said else ""
    return f"{meaning or f'The product refused it ({status})'}{words}."


def understood(kind: type[Understood], answer: Answer) -> Understood:
    """Return an answer as what it should be.

    Raises:
        Refused: it is something else.
    """
    try:
        return kind.model_validate(answer)
    except ValidationError:
        raise Refused(_NONSENSE) from None
