"""Which of a file's hosts this machine is: what it was told, its addresses, its name.

The kernel is asked by who makes one; whatever it knows, a file without hosts asks nobody.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterable
from typing import Final

from xconnectd.errors import XconnectError

VARIABLE: Final = "XCONNECTD_HOST"
"""Of the environment; ``--host`` sets it for the command that has it."""


class UnknownHostError(XconnectError):
    """This machine is none of the hosts, or cannot be told from two; ``hint`` is the way out."""

    def __init__(self, reason: str, hint: str) -> None:
        self.reason = reason
        self.hint = hint
        super().__init__(f"{reason} ({hint})")


class Identity:
    """Asked anew at each read of a file, since addresses come and go.

    ``addresses`` are those of this network namespace, ``recorded`` is the host that its daemon said
    it was, empty where none did.
    """

    def __init__(
        self, addresses: Callable[[], Collection[str]], recorded: Callable[[], str] = str
    ) -> None:
        self._addresses = addresses
        self._recorded = recorded

    def among(self, hosts: Iterable[tuple[str, str]]) -> str:
        """The name of this one, of names and addresses.

        Raises:
            UnknownHostError: it is none of them, or nobody can say which.
        """
        known = dict(hosts)
        if told := os.environ.get(VARIABLE, ""):
            if told in known:
                return told
            reason = f"`hosts` has no `{told}`, which this host is said to be"
            raise UnknownHostError(reason, f"--host or {VARIABLE} is one of {_listed(known)}")
        if (recorded := self._recorded()) in known:
            return recorded
        own = self._addresses()
        if here := [name for name, address in known.items() if address in own]:
            if len(here) == 1:
                return here[0]
            reason = f"this machine has the addresses of {_listed(here, ' and ')}"
            raise UnknownHostError(reason, f"say which it is: --host {here[0]}, or {VARIABLE}")
        name = socket.gethostname()
        for each in (name, name.partition(".")[0]):
            if each in known:
                return each
        reason = (
            f"this machine is none of `hosts`: it has no address of {_listed(known)}, and its name"
            f" is `{name}`"
        )
        hint = f"say which it is: --host NAME, or {VARIABLE}; or give it a line in `hosts`"
        raise UnknownHostError(reason, hint)


def _listed(names: Iterable[str], between: str = ", ") -> str:
    found = [*names]
    return between.join(found[:_MANY]) + (f" and {len(found) - _MANY} more" * (len(found) > _MANY))


_MANY: Final = 8
