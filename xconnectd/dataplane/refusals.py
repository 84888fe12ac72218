"""What the kernel refuses of maps, programs and pins, as our errors, with the way out.

The OSError behind an error is its ``__cause__``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from xconnectd import capabilities
from xconnectd.dataplane import libbpf
from xconnectd.dataplane.pins import NoBpffsError
from xconnectd.errors import DataplaneError, PrivilegeError, XconnectError
from xconnectd.kernel_version import kernel_version

OPEN: Final = "open"
"""The stage of who only looks, and needs no capability but to get at the files."""


@contextmanager
def stage(name: str, purpose: str) -> Iterator[None]:
    """Turns what the kernel refuses inside into our errors, of the stage with that name."""
    try:
        yield
    except NoBpffsError as error:
        raise DataplaneError(name, _NO_BPFFS.format(path=error)) from error
    except OSError as error:
        raise refusal(name, purpose, error) from error


_NO_BPFFS: Final = (
    "{path} is no BPF filesystem: mount -t bpf bpf /sys/fs/bpf "
    "(for a container: -v /sys/fs/bpf:{path}, or one of its own)"
)


def refusal(stage: str, purpose: str, error: OSError) -> XconnectError:
    """The error to raise: a PrivilegeError where a capability is missing, else a DataplaneError."""
    log = error.log if isinstance(error, libbpf.LoadError) else ""
    if error.errno in (errno.EPERM, errno.EACCES):
        return _forbidden(stage, purpose, error, log)
    if error.errno is None:
        return DataplaneError(stage, f"libbpf cannot be used (Debian: libbpf1): {error}")
    if stage == "maps" and error.errno == errno.EINVAL and kernel_version() < (5, 4):
        return DataplaneError(stage, f"Linux 5.4 is needed, this is {os.uname().release}")
    return DataplaneError(stage, f"{purpose}: {in_words(error)}", log)


def _forbidden(stage: str, purpose: str, error: OSError, log: str) -> XconnectError:
    if stage == OPEN:  # a reader needs nothing but to get at the files
        return PrivilegeError(
            "CAP_DAC_OVERRIDE", f"{purpose} ({in_words(error)}), which are root's"
        )
    missing = _missing_capabilities(log)
    if missing:
        return PrivilegeError(", ".join(missing), f"{purpose} ({in_words(error)})")
    if log:  # the verifier refuses with EACCES too
        return DataplaneError(stage, f"{purpose}: {in_words(error)}", log)
    return DataplaneError(stage, f"{purpose}: {in_words(error)}; {_NOT_A_CAPABILITY}")


_NOT_A_CAPABILITY: Final = (
    "the capabilities are there, so something else forbids it: a seccomp profile (for a "
    "container: --security-opt seccomp=unconfined), a security module, a read-only mount, "
    "a directory of another user, or before Linux 5.11 RLIMIT_MEMLOCK"
)


def demand_capabilities() -> None:
    """Raises PrivilegeError without those of a daemon.

    What is pinned is opened without any; the first change of an interface would be refused.
    """
    if missing := _missing_capabilities(""):
        purpose = "taking over the wires of an earlier daemon"
        raise PrivilegeError(", ".join(missing), purpose)


def _missing_capabilities(log: str) -> list[str]:
    """CAP_PERFMON is wanted for pointer arithmetic only: ``xdp_linear``, before Linux 5.18."""
    if "prohibited" in log:
        return capabilities.missing("CAP_PERFMON")
    return capabilities.missing("CAP_BPF", "CAP_NET_ADMIN")


def in_words(error: OSError) -> str:
    """``Operation not permitted (EPERM)``."""
    return f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})"
