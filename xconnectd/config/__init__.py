"""The file: found and read from disk, watched, parsed to a Wiring.

Imports modules of the root only.
"""
