"""`python -m bsmamba2`: the command line."""

import sys

from bsmamba2.cli import main

sys.exit(main())
