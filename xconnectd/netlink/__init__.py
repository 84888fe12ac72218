"""The kernel's interfaces by rtnetlink and ethtool, and network namespaces.

Imports modules of the root only; the only package that imports pyroute2.
"""
