"""How a file names the monitor of a virtual machine and one of its netdevs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xconnectd.monitor_address import Monitor, MonitorAddress

GOOD = {
    "qmp:/run/r1.sock#net0": Monitor("qmp", path="/run/r1.sock"),
    "hmp:/run/my lab/ä#1.sock#p01": Monitor("hmp", path="/run/my lab/ä#1.sock"),
    "qmp:127.0.0.1:4444#net0": Monitor("qmp", host="127.0.0.1", port=4444),
    "hmp:clab-demo_r1.example:4001#p01": Monitor("hmp", host="clab-demo_r1.example", port=4001),
    "qmp:[::1]:65535#net0": Monitor("qmp", host="::1", port=65535),
    "qmp:[fe80::1%eth0]:1#net0": Monitor("qmp", host="fe80::1%eth0", port=1),
    "hmp:9front:1#virtio-net-pci.0": Monitor("hmp", host="9front", port=1),
}


@pytest.mark.parametrize("text", GOOD)
def test_what_a_text_stands_for(text: str) -> None:
    address = MonitorAddress.parse(text)
    assert address.monitor == GOOD[text]
    assert address.netdev == text.rpartition("#")[2]
    assert str(address) == text


def test_netdevs_of_one_machine_have_one_monitor() -> None:
    one, other = map(MonitorAddress.parse, ("qmp:/r.sock#net0", "qmp:/r.sock#net1"))
    assert one != other
    assert one.monitor == other.monitor
    assert str(one.monitor) == "/r.sock"
    assert str(MonitorAddress.parse("hmp:[::1]:4001#p").monitor) == "[::1]:4001"


BAD = {
    "": "a monitor begins with `qmp:` or `hmp:`, not ``",
    "/run/r1.sock#net0": "begins with",
    "QMP:/run/r1.sock#net0": "begins with",
    "unix:/run/r1.sock#net0": "begins with",
    "qmp": "begins with",
    "qmp:": "the netdev of the machine is missing",
    "qmp:/run/r1.sock": "the netdev of the machine is missing",
    "qmp:#net0": "the netdev of the machine is missing",
    "qmp:/run/r1.sock#": "cannot be a netdev's id",
    "qmp:/run/r1.sock#0net": "`0net` cannot be a netdev's id",
    "qmp:/run/r1.sock#net 0": "cannot be a netdev's id",
    "hmp:h:1#net0\n": "cannot be a netdev's id",
    "hmp:h:1#net0\nquit": "cannot be a netdev's id",
    "hmp:h:1#nét0": "cannot be a netdev's id",
    f"hmp:h:1#n{'e' * 127}": "cannot be a netdev's id",
    "qmp:unix:/run/r1.sock#net0": "`unix:` is too much",
    "hmp:tcp:127.0.0.1:4001#p01": "`tcp:` is too much",
    "qmp:run/r1.sock#net0": "neither an absolute path nor HOST:PORT",
    "qmp:./r1.sock#net0": "neither an absolute path nor HOST:PORT",
    f"qmp:/{'r' * 107}#net0": "the path has 108 bytes",
    "qmp:/run/\0#net0": "unprintable",
    "qmp:host#net0": "neither an absolute path nor HOST:PORT",
    "qmp:host:#net0": "`` is no port",
    "qmp:host:0#net0": "`0` is no port",
    "qmp:host:65536#net0": "`65536` is no port",
    "qmp:host:04001#net0": "`04001` is no port",
    "qmp:host:٣#net0": "is no port",
    "qmp::4001#net0": "`` is neither an IP address nor a name",
    "qmp:two hosts:1#net0": "neither an IP address nor a name",
    "qmp:1.2.3:1#net0": "`1.2.3` is no IPv4 address",
    "qmp:1.2.3.400:1#net0": "`1.2.3.400` is no IPv4 address",
    "qmp:::1:4444#net0": "an IPv6 address stands in brackets",
    "qmp:[::1:4444#net0": "an IPv6 address stands in brackets",
    "qmp:[:::1]:4444#net0": "`:::1` is no IPv6 address",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_is_said_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        MonitorAddress.parse(text)
    problem, example = refusal.value.args
    assert BAD[text] in problem
    assert example


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("qmp:/run/r1.sock", "`qmp:/run/r1.sock#net0`"),
        ("qmp:unix:/run/r1.sock#n", "`qmp:/run/r1.sock#n`"),
        ("qmp:::1:4444#n", "`qmp:[::1]:4444#n`"),
        ("hmp:::4001#p01", "`hmp:[::1]:4001#p01`"),
        ("hmp:r1:x#p01", "`hmp:r1:4001#p01`"),
        ("hmp::x#p01", "`hmp:127.0.0.1:4001#p01`"),
        ("hmp:1.2.3:99#p01", "`hmp:127.0.0.1:99#p01`"),
    ],
)
def test_the_example_is_near_to_what_was_meant(text: str, example: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        MonitorAddress.parse(text)
    assert refusal.value.args[1] == example
    MonitorAddress.parse(example.strip("`"))


PIECES = st.sampled_from(["qmp", "hmp", ":", "#", "/", "[", "]", "::1", "127.0.0.1", "r1", "4001"])


@given(st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join)))
def test_every_text_is_taken_as_it_is_or_refused(text: str) -> None:
    try:
        address = MonitorAddress.parse(text)
    except ValueError as refusal:
        problem, example = refusal.args
        assert problem
        assert example
    else:
        assert str(address) == text
