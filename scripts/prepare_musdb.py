"""Runs `bsmamba2 check-data`."""

import sys

from bsmamba2.cli import main

if __name__ == "__main__":
    sys.exit(main(["check-data", *sys.argv[1:]]))
