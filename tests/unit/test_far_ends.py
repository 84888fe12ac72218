"""Far ends of many veths, read in one dump of a namespace: the rest is tested on a real kernel."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

from messages import link

from xconnectd.model import Far
from xconnectd.netlink import uapi
from xconnectd.netlink.interfaces import Interfaces, _dump_of
from xconnectd.netlink.transport import NetlinkError, Question


class Answers:
    """In place of a ``Route``: one namespace refuses a dump, that of the other lacks one."""

    def __init__(self) -> None:
        self.alone = 0

    def exchange(self, request: bytes) -> tuple[list[bytes], bool]:
        if request == _dump_of(1):
            raise NetlinkError(errno.EPERM, "it may not be looked into")
        assert request == _dump_of(2)
        return [link(uapi.RTM_NEWLINK, n, f"b{n}") for n in range(1, 300)], True

    def ask_each(self, questions: list[Question], _unless: Iterable[int]) -> list[list[bytes]]:
        self.alone += len(questions)
        return [[link(uapi.RTM_NEWLINK, n or 0, f"b{n}")] for _, n in questions]


def test_far_ends_that_a_dump_lacks_are_asked_for_alone() -> None:
    """As are those that are few where they are."""
    answers: Any = Answers()
    places = [(n, nsid) for nsid in (1, 2) for n in range(1, 301)] + [(7, 3), (8, None)]
    fars = {1000 + at: Far(*place) for at, place in enumerate(places)}
    found = Interfaces(answers)._far_ends(fars)
    assert {i: (each.name, each.nsid) for i, each in found.items()} == {
        i: (f"b{far.ifindex}", far.nsid) for i, far in fars.items()
    }
    assert answers.alone == 300 + 1 + 2
