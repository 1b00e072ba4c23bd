"""A player for pages: all sounds of a song in sync, with waveforms and spectrograms; and a page of one song."""
