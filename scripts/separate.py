"""Runs `bsmamba2 separate`."""

import sys

from bsmamba2.cli import main

if __name__ == "__main__":
    sys.exit(main(["separate", *sys.argv[1:]]))
