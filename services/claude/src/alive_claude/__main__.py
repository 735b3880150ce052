"""Runs the Claude service: ``python -m alive_claude``."""

from alive_claude.provider import create_provider
from alive_kit.service import main

main(create_provider)
