"""Runs the router: ``python -m alive_router``; with ``token`` makes a caller's token."""

import sys

from alive_router.new_token import print_token
from alive_router.service import main

if sys.argv[1:2] == ["token"]:
    print_token(sys.argv[2:])
else:
    main()
