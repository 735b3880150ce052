"""Runs the edge: ``python -m alive_edge``."""

import asyncio
import os
import sys

from pydantic import ValidationError

from alive_edge.envoy import run
from alive_edge.settings import EdgeSettings
from alive_kit.settings import explain


def main() -> None:
    """Run Envoy until SIGTERM; exit with its code, or with 2 and one line when a setting is wrong."""
    try:
        settings = EdgeSettings()  # type: ignore[call-arg]  # pydantic fills it from the environment
    except ValidationError as error:
        sys.exit(explain(error))
    os.umask(0o007)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    sys.exit(asyncio.run(run(settings)))


main()
