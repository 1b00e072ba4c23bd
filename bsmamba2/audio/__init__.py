"""Audio files: what they hold, in and out block by block. Audio is (c, n) float32, full scale at 1."""

# Samples in a block of a file.
BLOCK = 1 << 16
