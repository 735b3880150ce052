#!/usr/bin/env python3
"""The agent as a program: what a vendor's CLI is to other providers."""

import sys
from pathlib import Path

# Started as a file: in a box the kit is not installed. Of the kit only what is beside this file may be imported.
sys.path[0] = str(Path(__file__).resolve().parents[3])

from alive_kit.testing.reference.turn import main  # noqa: E402

main(sys.argv[1:])
