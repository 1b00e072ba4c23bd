"""Names of stems and of the other outputs of a separation."""

import unicodedata

from bsmamba2.file_names import is_device

VOCALS = "vocals"
# The song as a whole.
MIXTURE = "mixture"
# The song without its vocals.
INSTRUMENTAL = "instrumental"
# The song without all other stems that are written.
RESIDUAL = "residual"
# A voice, and the rest of its recording.
SPEECH, NOISE = "speech", "noise"
# The four stems of MUSDB18, in the order of its stem files.
MUSDB_STEMS = ("drums", "bass", "other", VOCALS)
# What a name may consist of besides letters, marks and digits of any script, and how long it may be: it becomes a
# part of file names, which have at most 255 bytes.
PUNCTUATION = frozenset(" -_.,+&'()#!")
LONGEST_STEM_NAME_BYTES = 100


def is_allowed_name(name: object) -> bool:
    """Returns whether a stem may have this name: whether it can be a file name everywhere, and shown as it is."""
    if not isinstance(name, str) or not name or not all(map(_is_allowed, name)):
        return False
    whole = name[0] not in " -." and name[-1] not in " ."
    return whole and len(name.encode()) <= LONGEST_STEM_NAME_BYTES and not is_device(name)


def _is_allowed(character: str) -> bool:
    return character in PUNCTUATION or unicodedata.category(character)[0] in "LMN"
