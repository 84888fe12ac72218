"""What the kernel refuses ``netlink.changes``: whatever is somebody else's, also in a race."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from xconnectd.dataplane import libbpf
from xconnectd.errors import LinkError
from xconnectd.model import Mode
from xconnectd.netlink.changes import Changes
from xconnectd.netlink.host_use import HostUse
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.transport import Route

from .lab import PROG_TC, PROG_XDP, XDP_PASS, Lab, inside


@pytest.fixture
def route(lab: Lab) -> Iterator[Route]:
    lab.pair("va", "vb")
    with closing(inside(lab.host, Route)) as opened:
        yield opened


@pytest.fixture
def opened(lab: Lab) -> Callable[[Path], int]:
    """The descriptor of what is pinned, until the lab is closed."""

    def open_pin(path: Path) -> int:
        fd = libbpf.open_pin(path)
        lab.on_close(os.close, fd)
        return fd

    return open_pin


def test_only_a_program_that_is_named_is_replaced(
    lab: Lab, route: Route, opened: Callable[[Path], int]
) -> None:
    """One that came after the look: the kernel itself is told which program is meant."""
    ours, older = (opened(lab.program(PROG_XDP, XDP_PASS, name)) for name in ("ours", "older"))
    interfaces = Interfaces(route)
    (va,), changes = interfaces.find("va"), Changes(route, HostUse(route, interfaces))

    def assert_refused(theirs: int) -> None:
        for replacing in (None, older):
            with pytest.raises(LinkError):
                changes.attach(va, Mode.GENERIC, ours, replacing)
        for fd in (ours, older):
            with pytest.raises(LinkError):
                changes.detach(va, Mode.GENERIC, fd)
        assert lab.xdp("va") == theirs

    assert_refused(lab.foreign_xdp("va"))
    lab.ip("link set va xdpgeneric off")
    changes.attach(va, Mode.GENERIC, older, None)
    taker = lab.program(PROG_XDP, XDP_PASS, "taker")
    lab.ip(f"-force link set va xdpgeneric pinned {taker}")
    assert_refused(lab.xdp("va"))
    lab.ip("link set va xdpgeneric off")
    changes.attach(va, Mode.GENERIC, older, None)
    changes.attach(va, Mode.GENERIC, ours, older)
    assert lab.xdp("va") == libbpf.program_info(ours).id
    changes.detach(va, Mode.GENERIC, ours)
    assert lab.xdp("va") == 0


def test_a_filter_that_stands_in_our_place_is_not_replaced(
    lab: Lab, route: Route, opened: Callable[[Path], int]
) -> None:
    fd = opened(lab.program(PROG_TC, XDP_PASS, "ours"))
    interfaces = Interfaces(route)
    (va,), changes = interfaces.find("va"), Changes(route, HostUse(route, interfaces))
    changes.change(va, "clsact", 1)
    changes.add_filter(va, "ingress", fd, replacing=False)
    with pytest.raises(LinkError):
        changes.add_filter(va, "ingress", fd, replacing=False)
    changes.add_filter(va, "ingress", fd, replacing=True)


def test_of_changes_in_one_message_the_one_that_is_refused_is_told(
    lab: Lab, route: Route, opened: Callable[[Path], int]
) -> None:
    """MTU and program of an interface go in one message; the kernel's word is on all of it."""
    fd = opened(lab.program(PROG_XDP, XDP_PASS, "ours"))
    interfaces = Interfaces(route)
    ends, changes = interfaces.find("va", "vb"), Changes(route, HostUse(route, interfaces))
    theirs = lab.foreign_xdp("va")
    calls = [
        call
        for each in ends
        for call in (
            partial(changes.change, each, "promiscuous", 1),
            partial(changes.change, each, "mtu", 1400),
            partial(changes.attach, each, Mode.GENERIC, fd, None),
        )
    ]
    refused = changes.each(calls)
    assert {number: type(why) for number, why in refused.items()} == {2: LinkError}
    assert "attach generic XDP" in str(refused[2])
    calls = [
        partial(changes.change, ends[1], "mtu", 1 << 20),
        partial(changes.change, ends[1], "addr_gen_mode", 1),
    ]
    refused = changes.each(calls)
    assert [refused[0], "set mtu" in str(refused[0])] == [refused[1], True], "none after it is made"
    changes.each(
        [
            partial(changes.change, ends[1], "mtu", 1300),
            partial(changes.change, ends[1], "promiscuous", 0),
        ]
    )
    found = [(x.mtu, x.promiscuous, x.addr_gen_mode) for x in interfaces.find("va", "vb")]
    assert found == [(1400, True, 0), (1300, False, 0)]
    assert [lab.xdp("va"), lab.xdp("vb")] == [theirs, libbpf.program_info(fd).id]


def test_what_is_put_back_is_put_back_also_where_a_program_stays(
    lab: Lab, route: Route, opened: Callable[[Path], int]
) -> None:
    """One message takes a program off and puts the MTU back; nothing goes behind a new program."""
    fd = opened(lab.program(PROG_XDP, XDP_PASS, "ours"))
    interfaces = Interfaces(route)
    ends, changes = interfaces.find("va", "vb"), Changes(route, HostUse(route, interfaces))
    changes.attach(ends[1], Mode.GENERIC, fd, None)
    theirs = lab.foreign_xdp("va")
    calls = [
        call
        for each in ends
        for call in (
            partial(changes.detach, each, Mode.GENERIC, fd),
            partial(changes.change, each, "mtu", 1400),
            partial(changes.change, each, "addr_gen_mode", 1),
        )
    ]
    refused = changes.each(calls)
    assert [*refused] == [0], refused
    assert "detach generic XDP" in str(refused[0])
    found = [(x.mtu, x.addr_gen_mode) for x in interfaces.find("va", "vb")]
    assert found == [(1400, 1)] * 2
    assert [lab.xdp("va"), lab.xdp("vb")] == [theirs, 0]
    replaced = [
        partial(changes.attach, ends[1], Mode.GENERIC, fd, None),
        partial(changes.detach, ends[1], Mode.GENERIC, fd),
        partial(changes.attach, ends[1], Mode.GENERIC, fd, None),
        partial(changes.change, ends[1], "mtu", 1 << 20),
    ]
    assert [*changes.each(replaced)] == [3]
    assert lab.xdp("vb") == libbpf.program_info(fd).id
