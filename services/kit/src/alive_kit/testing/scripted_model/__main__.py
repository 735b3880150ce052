"""Runs the scripted model as a process: ``python -m alive_kit.testing.scripted_model --listen 127.0.0.1:8099``."""

import argparse
import asyncio
from pathlib import Path

from alive_kit.server import until_signalled
from alive_kit.testing.scripted_model.script import SCRIPT
from alive_kit.testing.scripted_model.server import DEFAULT, ScriptedModel


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="scripted_model", description="Speaks both vendors' APIs from a script.")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="where to serve (port 0: any)")
    parser.add_argument("--key-file", type=Path, help="file with the only key that is accepted; any key without it")
    parser.add_argument("--script", type=Path, help="JSON file with the default script; the demo's without it")
    asyncio.run(_serve(parser.parse_args()))


async def _serve(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.listen.rpartition(":")
    key = arguments.key_file.read_text().strip() if arguments.key_file else ""
    async with ScriptedModel(key=key, host=host, port=int(port)) as model:
        if arguments.script:
            model.script(DEFAULT, SCRIPT.validate_json(arguments.script.read_bytes()))
        print(f"scripted model on {model.url}", flush=True)
        await until_signalled()


main()
