"""A person to write for, or to look at the website with their eyes."""

from typing import Annotated

from pydantic import BaseModel, Field

from alive_mcp import product
from alive_mcp.client import Client
from alive_mcp.context import Context
from alive_mcp.limits import cut

SECONDS = 60.0


class Persona(BaseModel):
    """What the product answers."""

    persona: str


async def generate_persona(
    context: Context,
    client: Client,
    query: Annotated[
        str, Field(description="Whom the website is for, or what it offers.", min_length=1, max_length=5000)
    ],
    style_preferences: Annotated[
        str,
        Field(description="How the persona should be written: tone, length, language.", min_length=1, max_length=2000),
    ],
    extra_things_to_know: Annotated[
        str | None, Field(description="Anything else to take into account.", max_length=5000)
    ] = None,
) -> str:
    """Describe a person whom the website is for: goals, worries, words they use. Up to 200 lines, takes up to a minute.

    The product asks a model for it; use it before writing texts or choosing a design.
    """
    asked = {"query": query, "stylePreferences": style_preferences}
    if extra_things_to_know:
        asked["extraThingsToKnow"] = extra_things_to_know
    async with client.working("Describing the person"):
        answer = await product.call(
            context, "POST", "/api/internal-tools/generate-persona", dict(asked), seconds=SECONDS
        )
    return cut(product.understood(Persona, answer).persona, lines=200)
