"""What stems and the other outputs of a separation are called."""

VOCALS = "vocals"
# The song as a whole.
MIXTURE = "mixture"
# The song without its vocals.
INSTRUMENTAL = "instrumental"
# The song without the other stems that are written.
RESIDUAL = "residual"
# The four stems of MUSDB18, in the order of its files.
MUSDB_STEMS = ("drums", "bass", "other", VOCALS)
