"""One pass: observe, evaluate, plan, apply.

Imports modules of the root only, and reaches the kernel by the Protocols in ``ports``.
"""
