"""Runs the reference provider's service: ``python -m alive_kit.testing.reference``."""

from alive_kit.service import main
from alive_kit.testing.reference.provider import create_provider

main(create_provider)
