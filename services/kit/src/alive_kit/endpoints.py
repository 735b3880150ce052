"""Where the providers are, as settings name them."""

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from alive_kit.validation import is_slug


def entries(text: str) -> list[str]:
    """Return what a list with commas has between them."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _parse(value: object) -> object:
    return dict(_parse_entry(entry) for entry in entries(value)) if isinstance(value, str) else value


def _parse_entry(entry: str) -> tuple[str, str]:
    provider_id, separator, endpoint = entry.partition("=")
    if not separator or not endpoint:
        raise ValueError(f"{entry!r} is not id=endpoint")
    if not is_slug(provider_id):
        raise ValueError(f"{provider_id!r} is not an id: lower-case letters, digits and '-'")
    return provider_id, endpoint


Endpoints: TypeAlias = Annotated[Mapping[str, str], NoDecode, BeforeValidator(_parse)]
"""Providers as ``id=endpoint``, separated by commas: ``red=unix:/run/red/agent.sock,blue=blue.example:50051``."""
