"""Puts a file's new content in its place, whole, and as its owner's."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from xconnectd.config import reader

_DIRECTORY_REFUSES: Final = (errno.EBUSY, errno.EROFS, errno.EACCES, errno.EPERM)
"""The first where the file is a mount of its own, as in a container, the others where its
directory may not be written."""

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def replace(path: Path, data: bytes) -> None:
    """By a rename, or in place where nothing but the file itself may be changed.

    Raises:
        ConfigError: a symlink on the way to it is not to be followed.
        OSError: it cannot be written; it names ``path``.
    """
    place, directory = reader.pinned(path)  # a link to the file stays a link
    try:
        _write(place, data)
    except OSError as error:  # by the way through the open directory, which nobody knows
        what = f"cannot be written: {error.strerror}"
        raise OSError(error.errno, what, str(path)) from None
    finally:
        os.close(directory)


def _write(path: Path, data: bytes) -> None:
    try:
        _rename_over(path, data)
    except OSError as error:
        if error.errno not in _DIRECTORY_REFUSES:
            raise
        flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags), "wb") as file:  # noqa: PTH123 (a descriptor)
            file.write(data)


def _rename_over(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    mode = 0o600 if path.exists() else 0o666  # at no moment open to more people than the file is
    try:
        scratch.unlink(missing_ok=True)
        with os.fdopen(os.open(scratch, _NEW, mode), "wb") as file:
            file.write(data)
            if path.exists():
                _inherit(file.fileno(), path.stat())
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name with no content
        scratch.rename(path)
    except OSError:
        with suppress(OSError):
            scratch.unlink()
        raise


def _inherit(descriptor: int, was: os.stat_result) -> None:
    """Whoever may edit the file, and nobody else, may edit it afterwards."""
    with suppress(PermissionError):  # a container without CAP_CHOWN
        os.fchown(descriptor, was.st_uid, was.st_gid)
    os.fchmod(descriptor, was.st_mode & 0o7777)
