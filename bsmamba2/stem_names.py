"""Names of stems and of the other outputs of a separation."""

VOCALS = "vocals"
# The song as a whole.
MIXTURE = "mixture"
# The song without its vocals.
INSTRUMENTAL = "instrumental"
# The song without all other stems that are written.
RESIDUAL = "residual"
# The four stems of MUSDB18, in the order of its stem files.
MUSDB_STEMS = ("drums", "bass", "other", VOCALS)
