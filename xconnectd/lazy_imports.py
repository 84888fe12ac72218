"""Importing parts of a large package without all the rest of it.

A daemon imports at its start all of this package that it will need. What were imported later would
be another release's, if an upgrade has replaced the files meanwhile. Late are only modules of
Python that it rarely uses (``subprocess``), and whole features that a file asks for (``metrics``,
``hosts``), which begin with that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


@contextmanager
def without_init(package: str) -> Iterator[None]:
    """Submodules of ``package`` can be imported inside without running its ``__init__``.

    pyroute2's imports everything it has: 7 MB and half of its import time (100 of 200 ms,
    measured on the daemon's start) for parts nobody here uses, watchdog's the observer of this
    system: 3 ms. Afterwards the package is as if never imported, so ``import pyroute2`` by anybody
    else works as ever. Does nothing if it was imported already, or is not there (then the import
    inside says so).
    """
    spec = None if package in sys.modules else find_spec(package)
    if spec is None:
        yield
        return
    sys.modules[package] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[package]


class _Late(ModuleType):
    def __getattr__(self, attribute: str) -> Any:
        if sys.modules.get(self.__name__) is not self:
            return getattr(import_module(self.__name__), attribute)

        def call_later(*arguments: Any, **options: Any) -> Any:
            return getattr(self, attribute)(*arguments, **options)

        return call_later


@contextmanager
def late(name: str) -> Iterator[None]:
    """What is imported inside gets the module ``name`` when it uses something of it, not before.

    structlog imports asyncio for loggers that nobody here uses, and that ssl: a tenth of the start.
    watchdog imports ctypes.util for nothing, and that shutil and subprocess: 5 ms.
    What is taken from ``name`` inside (not by ``from … import``) is a function to be called later.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = _Late(name)
    try:
        yield
    finally:
        del sys.modules[name]


@contextmanager
def without(package: str) -> Iterator[None]:
    """Whoever would use ``package`` if it is installed does without, when imported inside.

    structlog takes rich for its tracebacks, if it is there: 5 MB and 50 ms of a daemon's start.
    """
    known = {name: module for name, module in sys.modules.items() if name == package}
    sys.modules[package] = None  # type: ignore[assignment]  # makes an import fail
    try:
        yield
    finally:
        del sys.modules[package]
        sys.modules.update(known)
