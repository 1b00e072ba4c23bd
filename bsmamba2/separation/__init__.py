"""Separation: audio of any length, stems of a song, many songs."""
