"""The command line: ``alive-stack demo | up | doctor | workspace NAME | certs [DIR] | units [DIR] | prepare``."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from alive_kit.validation import is_slug
from alive_stack.certificates import make_certificates
from alive_stack.declarations import declared
from alive_stack.demo import demo
from alive_stack.doctor import doctor
from alive_stack.host import Host
from alive_stack.stack import NotStarted
from alive_stack.units import write_units
from alive_stack.up import LISTEN, stack_of, up


def main() -> None:
    """Run a command and exit with its code."""
    parser = argparse.ArgumentParser(prog="alive-stack", description="Runs Alive Agents on one host.")
    parser.add_argument("--checkout", type=Path, default=Path.cwd(), help="the repository (default: here)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("demo", "give one task to every agent"), ("up", "run until Ctrl-C")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--venvs", type=Path, required=True, help="where `make services` installed them")
    commands.choices["up"].add_argument("--script", type=Path, help="JSON script for the scripted model")
    units = commands.add_parser(
        "units", help="write systemd units that run what `up` would, with the variables set now"
    )
    units.add_argument("directory", type=Path, nargs="?", default=Path("build/units"), help="where to write them")
    prepare = commands.add_parser("prepare", help="make directories and hand keys over: what the first unit runs")
    for command in (units, prepare):
        command.add_argument("--venvs", type=Path, required=True, help="where `make services` installed them")
    commands.add_parser("doctor", help="check what runs on this host")
    certs = commands.add_parser("certs", help="make certificates for development")
    certs.add_argument(
        "directory", type=Path, nargs="?", default=Path("build/certificates"), help="where to write them"
    )
    workspace = commands.add_parser("workspace", help="make a workspace")
    workspace.add_argument("name", help="its id, for example site.example")
    sys.exit(_run(parser.parse_args()))


def _run(arguments: argparse.Namespace) -> int | str:
    checkout = arguments.checkout.resolve()
    match arguments.command:
        case "demo":
            return asyncio.run(demo(checkout, arguments.venvs))
        case "up":
            return asyncio.run(up(checkout, arguments.venvs, arguments.script))
        case "doctor":
            return asyncio.run(doctor(checkout, os.environ.get("ALIVE_LISTEN") or LISTEN))
        case "units" | "prepare":
            return _units(arguments, checkout)
        case "certs":
            return _make_certificates(arguments.directory, checkout)
        case _:
            return _make_workspace(arguments.name, checkout)


def _units(arguments: argparse.Namespace, checkout: Path) -> int | str:
    stack = stack_of(checkout, arguments.venvs)
    try:
        stack.prepare()
    except NotStarted as error:
        return str(error)
    if arguments.command == "units":
        for path in write_units(arguments.directory, stack, checkout):
            print(path)
    return 0


def _make_certificates(directory: Path, checkout: Path) -> int:
    for path in make_certificates(directory, {provider.name: provider.uid for provider in declared(checkout)}):
        print(path)
    return 0


def _make_workspace(name: str, checkout: Path) -> int | str:
    if not is_slug(name):
        return f"{name!r} is not an id: lower-case letters, digits, '.' and '-', for example site.example"
    host = Host.from_environment(checkout)
    if not host.workspaces.is_dir():
        return f"{host.workspaces} does not exist: run `make up` first, or set ALIVE_WORKSPACES"
    print(host.make_workspace(name))
    return 0


if __name__ == "__main__":
    main()
