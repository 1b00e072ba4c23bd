"""Audio files: what they hold, in and out block by block. Audio is (c, n) float32, full scale at 1."""
