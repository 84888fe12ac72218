"""BPF programs, maps and pins: compiled, loaded, pinned, read and written.

Imports modules of the root only; the only package that imports bcc.
"""
