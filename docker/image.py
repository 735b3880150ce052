"""Prints what an image runs: ``image.py MEMBER``, as its pyproject.toml declares it."""

import shlex
import sys
import tomllib
from pathlib import Path

MODULES = {
    "router": "alive_router",
    "services/edge": "alive_edge",
    "services/gateway": "alive_gateway",
    "services/stack": "alive_stack",
    "services/kit": "alive_kit.testing.scripted_model",
}


def main() -> None:
    """Print a shell script."""
    member = sys.argv[1]
    name = Path(member).name
    python = f"/opt/alive/{name}/bin/python"
    tool = tomllib.loads(Path(member, "pyproject.toml").read_text()).get("tool", {})
    service = tool.get("alive", {}).get("service", {})
    command = [python, "-m", service["module"] if service else MODULES[member]]
    if box := service.get("box"):
        command = [*launcher(name, service["uid"], box), "--", *command]
    print(f'#!/bin/sh\nexec {shlex.join(command)} "$@"')


def launcher(name: str, uid: int, box: dict[str, object]) -> list[str]:
    """Return the launcher's command, which starts the service."""
    program = next(Path(f"/opt/alive/{name}").glob(f"lib/python*/site-packages/{box['program']}"))
    keep = [word for path in box["keep"] for word in ("--keep", path)]
    options = {
        "--socket": f"/run/alive/{name}-launcher/launcher.sock",
        "--service-uid": uid,
        "--service-groups": 43100,
        "--program": program,
        "--workspaces": "/var/lib/alive/workspaces",
        "--homes": f"/var/lib/alive/homes/{name}",
        "--gateway": f"/run/alive/{name}-gateway",
    }
    shown = [("--read-only", f"/opt/alive/{member}") for member in (name, "mcp")]
    words = [str(word) for option in (*options.items(), *shown) for word in option]
    nested = ["--nested"] if box.get("nested") else []
    return ["/opt/alive/launcher/bin/python", "-I", "-m", "alive_launcher", *words, *keep, *nested]


main()
