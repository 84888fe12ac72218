"""Tests on a real kernel, each in network namespaces of its own."""
