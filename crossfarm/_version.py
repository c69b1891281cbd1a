"""The release of the distribution; what files and messages are versioned by is in compat/versions.py."""

__version__ = "0.1.0"
