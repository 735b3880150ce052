"""Runs the router: ``python -m alive_router``."""

from alive_router.service import main

main()
