"""``python -m medsr``: the same as the ``medsr`` command."""

from __future__ import annotations

import sys

from medsr.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
