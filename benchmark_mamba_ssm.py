"""Agreement of the scans, then the time over its bound and the memory of the network; see `benchmarks.mamba_ssm`."""

import sys

from benchmarks.mamba_ssm import main

if __name__ == "__main__":
    sys.exit(main())
