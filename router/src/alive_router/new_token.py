"""Makes a bearer token for a caller: ``python -m alive_router token NAME --owner OWNER``."""

import argparse
import hashlib
import secrets
import sys

_ENTRY = """
# Show the token as `authorization: Bearer …`. It is nowhere else: keep it.
{token}

# For ALIVE_CALLERS_FILE:
[[callers]]
name = "{name}"
owner = "{owner}"
workspaces = ["{workspaces}"]
scopes = ["turns", "sessions", "settings", "usage", "providers"]

[[callers.tokens]]
sha256 = "{digest}"
"""


def print_token(arguments: list[str]) -> None:
    """Print a new token, and what declares its caller."""
    parser = argparse.ArgumentParser(prog="python -m alive_router token", description="Makes a caller's token.")
    parser.add_argument("name", help="of the caller, for people")
    parser.add_argument("--owner", required=True, help="on whose behalf its turns run")
    parser.add_argument("--workspaces", default="*", help="an id, or the beginning of ids with a * (default: all)")
    asked = parser.parse_args(arguments)
    token = f"alive_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(token.encode()).hexdigest()
    named = {"name": asked.name, "owner": asked.owner, "workspaces": asked.workspaces}
    sys.stdout.write(_ENTRY.format(token=token, digest=digest, **named))
