"""Sends frames that carry the kernel's mark of a tc redirect, for the live test of a link.

Nothing is attached and no interface is made or changed: a program that redirects is run on each
frame by BPF_PROG_RUN, which the kernel does in the network namespace of the calling thread.
"""

from __future__ import annotations

import os
from typing import Final, Self

from xconnectd.dataplane import compiler, libbpf
from xconnectd.model import PROGRAM_NAME

_PROGRAM: Final = "send_redirected"


class RedirectingSender:
    """Frames leave by the interface with that ifindex, through its queueing discipline.

    Raises:
        DataplaneError: the program cannot be compiled.
        OSError: it may not be loaded (CAP_BPF, CAP_NET_ADMIN).
    """

    def __init__(self, ifindex: int) -> None:
        directory = compiler.source_directory()
        made_of = compiler.source_hash(directory, compiler.SENDER)
        code = compiler.code_for(directory, made_of, compiler.SENDER)[_PROGRAM]
        bound = code.bound({}, {"target": ifindex})
        self._fd = libbpf.load_program(libbpf.PROG_SCHED_CLS, PROGRAM_NAME, compiler.LICENSE, bound)

    def send(self, frame: bytes) -> None:
        """To be called in the namespace of the interface, for 14 to some 3,500 bytes.

        One that the interface does not take is lost like any other. Raises OSError.
        """
        libbpf.run_program(self._fd, frame)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
