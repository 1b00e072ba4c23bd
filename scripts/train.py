"""Runs `bsmamba2 train`."""

import sys

from bsmamba2.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
