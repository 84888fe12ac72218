"""What the kernel refuses ``netlink.changes``: whatever is somebody else's, also in a race."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from xconnectd.dataplane import libbpf
from xconnectd.errors import LinkError
from xconnectd.model import Mode
from xconnectd.netlink.changes import Changes
from xconnectd.netlink.host_use import HostUse
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.transport import Route

from .lab import PROG_TC, PROG_XDP, XDP_PASS, Lab, inside


def test_only_a_program_that_is_named_is_replaced_and_taken_off(lab: Lab) -> None:
    lab.pair("va", "vb")
    ours, older = (lab.program(PROG_XDP, XDP_PASS, name) for name in ("ours", "older"))
    with closing(inside(lab.host, Route)) as route:
        interfaces = Interfaces(route)
        changes = Changes(route, HostUse(route, interfaces))
        (va,) = interfaces.find("va")
        fd, other = libbpf.open_pin(ours), libbpf.open_pin(older)
        try:
            theirs = lab.foreign_xdp("va")
            for replacing in (None, other):
                with pytest.raises(LinkError):
                    changes.attach(va, Mode.GENERIC, fd, replacing)
            with pytest.raises(LinkError):
                changes.detach(va, Mode.GENERIC, fd)
            assert lab.xdp("va") == theirs
            lab.ip("link", "set", "va", "xdpgeneric", "off")
            changes.attach(va, Mode.GENERIC, other, None)
            changes.attach(va, Mode.GENERIC, fd, other)
            assert lab.xdp("va") not in (0, theirs)
            changes.detach(va, Mode.GENERIC, fd)
            assert lab.xdp("va") == 0
        finally:
            os.close(fd)
            os.close(other)


def test_a_filter_that_stands_in_our_place_is_not_replaced(lab: Lab) -> None:
    lab.pair("va", "vb")
    path = lab.program(PROG_TC, XDP_PASS, "ours")
    with closing(inside(lab.host, Route)) as route:
        interfaces = Interfaces(route)
        changes = Changes(route, HostUse(route, interfaces))
        (va,) = interfaces.find("va")
        fd = libbpf.open_pin(path)
        try:
            changes.change(va, "clsact", 1)
            changes.add_filter(va, "ingress", fd, replacing=False)
            with pytest.raises(LinkError):
                changes.add_filter(va, "ingress", fd, replacing=False)
            changes.add_filter(va, "ingress", fd, replacing=True)
        finally:
            os.close(fd)
