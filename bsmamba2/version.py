"""The version of this package, which it has without being installed too."""

__version__ = "0.2.0"
