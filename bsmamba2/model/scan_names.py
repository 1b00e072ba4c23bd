"""The names of the scans, without the scans themselves, which import torch."""

from typing import Literal

Scan = Literal["auto", "sequential", "chunked", "kernel"]
