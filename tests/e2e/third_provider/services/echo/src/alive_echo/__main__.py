"""Runs the service: ``python -m alive_echo``."""

from alive_echo import create_provider
from alive_kit.service import main

main(create_provider)
