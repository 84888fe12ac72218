"""SHA-256, for what is hashed here: files, and what our programs are made of.

hashlib's own is OpenSSL's, whose library takes 4 ms of a start and 3 MB. What CPython brings along
takes twice as long for a text, which is 0.2 ms for a file of 2,000 links.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash


def _sha256() -> Callable[[bytes], _Hash]:
    """CPython's, as hashlib itself would find it; some distributions build theirs without."""
    for module in ("_sha2", "_sha256"):  # since 3.12, and before
        with suppress(ImportError):
            own: Callable[[bytes], _Hash] = import_module(module).sha256
            return own
    from hashlib import sha256

    return sha256


sha256: Final = _sha256()
