"""Runs the Codex service: ``python -m alive_codex``."""

from alive_codex.provider import create_provider
from alive_kit.service import main

main(create_provider)
