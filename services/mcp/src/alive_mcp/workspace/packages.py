"""What runs the workspace's own programs: installing packages, checking the code."""

import re
from typing import Annotated

from pydantic import BaseModel, Field
from pydantic_core import from_json

from alive_mcp import programs
from alive_mcp.client import Client
from alive_mcp.context import Context
from alive_mcp.errors import Refused
from alive_mcp.limits import cut
from alive_mcp.workspace.paths import Tree

INSTALL_SECONDS = 60.0
CHECK_SECONDS = 120.0

_ERRORS = 10
_MANIFEST_BYTES = 1 << 20

_CLOSED = (
    "Packages cannot be installed: the network policy of this workspace is closed. It opens when an operator allows a "
    "package registry for it (ALIVE_REGISTRY_URL, or a proxy in HTTPS_PROXY). Tell the user, or do without the package."
)


class Check(BaseModel):
    """What one check of the code found."""

    name: str
    passed: bool
    errors: list[str] = Field(default=[], description="The first errors, at most ten.")
    more: int = Field(default=0, description="How many errors are not listed.")


class Checks(BaseModel):
    """What the checks of the code found."""

    passed: bool
    checks: list[Check]
    skipped: list[str] = Field(default=[], description="What could not be checked, and why.")


async def install_package(
    context: Context,
    client: Client,
    packageName: Annotated[  # noqa: N803  # The name that front ends know.
        str,
        Field(
            description="The package's name on npm, for example 'zod' or '@tanstack/react-query'.",
            pattern=r"^(@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*$",
            max_length=214,
        ),
    ],
    version: Annotated[
        str | None,
        Field(
            description="A version or range, for example '^3.22.0'; unset means the latest.",
            pattern=r"^[0-9A-Za-z^~<>=*][0-9A-Za-z.^~<>=*+-]*$",
            max_length=64,
        ),
    ] = None,
    dev: Annotated[bool, Field(description="For development only.")] = False,
) -> str:
    """Install an npm package into the workspace. Takes up to a minute.

    Needs a package registry: where the workspace's network policy allows none, the result says so.
    """
    if not context.registry:
        raise Refused(_CLOSED)
    _manifest(context)
    words = _install_words(f"{packageName}@{version}" if version else packageName, dev=dev)
    async with client.working(f"Installing {packageName}"):
        done = await programs.run(words, context.workspace, seconds=INSTALL_SECONDS, more=_registry(context))
    if done.code:
        raise Refused(f"{packageName} was not installed:\n{cut(done.output)}")
    return cut(f"Installed {packageName}{' for development' if dev else ''}.\n{done.output}")


async def check_codebase(context: Context, client: Client) -> Checks:
    """Check the code: TypeScript's types, and the linter where the workspace has one. Takes up to two minutes.

    Call it after changing code, and before you say that you are done.
    """
    scripts = _manifest(context).get("scripts")
    has_lint = isinstance(scripts, dict) and "lint" in scripts
    types = _words("bun", ["x", "--no-install", "tsc", "--noEmit"], ["exec", "--no", "--", "tsc", "--noEmit"])
    checks, skipped = [], []
    async with client.working("Checking the code"):
        if (context.workspace / "node_modules/.bin/tsc").exists():
            checks.append(await _check(context, "types", types, r"error TS\d+"))
        else:
            skipped.append("types: TypeScript is not installed in this workspace")
        if has_lint:
            checks.append(await _check(context, "lint", _words("bun", ["run", "lint"], ["run", "lint"]), r"\berror\b"))
        else:
            skipped.append("lint: package.json has no script of this name")
    return Checks(passed=all(check.passed for check in checks), checks=checks, skipped=skipped)


async def _check(context: Context, name: str, words: list[str], sign: str) -> Check:
    done = await programs.run(words, context.workspace, seconds=CHECK_SECONDS / 2)
    if not done.code:
        return Check(name=name, passed=True)
    said = [line.strip()[:300] for line in done.output.splitlines() if line.strip()]
    errors = [line for line in said if re.search(sign, line, re.IGNORECASE)] or said
    return Check(name=name, passed=False, errors=errors[:_ERRORS], more=max(len(errors) - _ERRORS, 0))


def _install_words(package: str, *, dev: bool) -> list[str]:
    # Neither runs what a package brings as a script of its own.
    npm = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--save-dev" if dev else "--save", "--", package]
    return _words("bun", ["add", *(["--dev"] if dev else []), "--", package], npm)


def _words(preferred: str, words: list[str], otherwise: list[str]) -> list[str]:
    """Return a command line for the package manager that is there: bun, or else npm."""
    if program := programs.found(preferred):
        return [program, *words]
    if program := programs.found("npm"):
        return [program, *otherwise]
    raise Refused("There is no package manager here: neither bun nor npm. Tell the user.")


def _registry(context: Context) -> dict[str, str]:
    """Return how package managers are told where the registry is, and where they may keep what they fetch."""
    registry = dict(context.registry)
    if url := registry.pop("ALIVE_REGISTRY_URL", ""):
        registry["NPM_CONFIG_REGISTRY"] = url
    return {**registry, "NPM_CONFIG_CACHE": "/tmp/npm", "BUN_INSTALL_CACHE_DIR": "/tmp/bun"}  # noqa: S108  # The box's.


def _manifest(context: Context) -> dict[str, object]:
    """Return the workspace's package.json."""
    content = Tree(context.workspace).read("package.json", most=_MANIFEST_BYTES)
    try:
        manifest = from_json(content)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise Refused("package.json is no JSON object. Correct it first.")
    return manifest
