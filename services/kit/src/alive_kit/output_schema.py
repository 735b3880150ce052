"""Checks that an output schema is one that answers can be checked against."""

import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

SCHEMA_BYTES = 64 << 10
"""The largest schema that is accepted: it is checked while every other turn of the service waits."""


def schema_complaint(text: str) -> str:
    """Return why a text is no object schema that answers can be checked against; empty when it is one."""
    if len(text.encode()) > SCHEMA_BYTES:
        return f"is over {SCHEMA_BYTES} bytes"
    try:
        schema = json.loads(text)
        Draft202012Validator.check_schema(schema)
        return _complaint(schema)
    except RecursionError:
        return "is nested too deep"
    except ValueError:
        return "is not JSON"
    except SchemaError as error:
        return f"is not a JSON Schema: {error.message}"


def _complaint(schema: Any) -> str:
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return 'is not the schema of an object: its type must be "object"'
    return next(_defects(schema, schema), "")


def _defects(schema: dict[str, Any], part: object) -> Iterator[str]:
    """Find what the meta-schema does not: references that lead nowhere."""
    if isinstance(part, list):
        for child in part:
            yield from _defects(schema, child)
    if not isinstance(part, dict):
        return
    for name, value in part.items():
        if name in {"$ref", "$dynamicRef"} and isinstance(value, str) and not _leads_somewhere(schema, value):
            yield f"refers to {value!r}, which is not in it"
        yield from _defects(schema, value)


def _leads_somewhere(schema: dict[str, Any], reference: str) -> bool:
    resource = DRAFT202012.create_resource(schema)
    try:
        Registry().with_resource("", resource).resolver_with_root(resource).lookup(reference)
    except Unresolvable:
        return False
    return True
