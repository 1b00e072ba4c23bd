"""Reading and writing audio files block by block. Audio is (c, n) float32, full scale at 1."""

# Samples per channel in a block.
BLOCK = 1 << 16
