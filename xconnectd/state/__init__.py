"""What must outlive the daemon and cannot be read from the kernel, on disk.

Imports modules of the root only.
"""
