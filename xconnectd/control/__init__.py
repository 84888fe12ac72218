"""The daemon's local control channel: protocol, server, client, and the lock on a namespace.

Imports modules of the root and config.
"""
