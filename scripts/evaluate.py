"""Runs `bsmamba2 evaluate`."""

import sys

from bsmamba2.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
