"""The command line: `python run.py [group=option] [key=value] ...`."""

from __future__ import annotations

import sys

from pulse_exp.command import main

if __name__ == "__main__":
    sys.exit(main())
