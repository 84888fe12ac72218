"""xconnectd: a declarative, YAML-driven cross-connect daemon for Linux."""

__version__ = "0.1.0"
