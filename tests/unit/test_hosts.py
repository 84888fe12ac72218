"""One file for several hosts: what is taken, what each host does of it, and which one this is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xconnectd.config import hosts
from xconnectd.config.hosts import links_of
from xconnectd.config.identity import VARIABLE, Identity, UnknownHostError
from xconnectd.config.parser import parse
from xconnectd.config.source import Files
from xconnectd.errors import ConfigError
from xconnectd.impairment import Impairment, Impairments
from xconnectd.model import DEFAULT_HOLD, Endpoint, Link, Node, Rewrite, Tunnel, Wiring
from xconnectd.monitor_address import MonitorAddress
from xconnectd.status.document import spellings

ADDRESSES = {"h1": "198.51.100.11", "h2": "198.51.100.12", "h3": "198.51.100.13"}
HOSTS = f"hosts: {{{', '.join(f'{name}: {at}' for name, at in ADDRESSES.items())}}}\n"
MONITOR = "qmp:/run/r1.sock#net0"
OPTION = f'{{monitor: "{MONITOR}"}}'


def wiring(links: str) -> Wiring:
    return parse(f"{HOSTS}links: {links}", "f")


def part(links: str, host: str) -> tuple[Link, ...]:
    return links_of(wiring(links), host).links


def far(text: str, vni: int) -> Endpoint:
    host = text.partition("/")[0]
    return Endpoint(text, host=host, tunnel=Tunnel(ADDRESSES[host], vni))


# --------------------------------------------------------------------------- what is taken

WRONG = [
    # Hosts; `^` stands before what is wrong.
    ("{h1: ^h2}", "{}", "`h1` is an IP address, not `h2`"),
    ("{h1: ^[198.51.100.1]}", "{}", "`h1` is an IP address, not a list"),
    ("{h1: ^0.0.0.0}", "{}", "`0.0.0.0` stands for no machine"),
    ("{h1: ^224.0.0.1}", "{}", "`224.0.0.1` is of many machines"),
    ("{h1: ^127.1.1.1}", "{}", "`127.1.1.1` is of each machine itself"),
    ("{h1: ^255.255.255.255}", "{}", "`255.255.255.255` is reserved"),
    ('{h1: ^"::"}', "{}", "`::` stands for no machine"),
    ('{h1: ^"ff02::1"}', "{}", "`ff02::1` is of many machines"),
    ('{h1: ^"fe80::1"}', "{}", "`fe80::1` is of no use outside one link"),
    ('{h1: ^"::ffff:c633:6401"}', "{}", "is of no use outside one link"),
    ('{h1: "2001:db8::1", h2: ^"2001:DB8:0::1"}', "{}",
     "`2001:db8::1` is the address of `h1` already"),
    ("{^h_1: 198.51.100.1}", "{}", "`h_1` cannot be the name of a host"),
    ("^{}", "{}", "`hosts` is a mapping of names to IP addresses, not nothing"),
    ("", "{h1/a: ^h9/b}", "`h9/b` is on a host that `hosts` does not have"),
    ("", "{h1/a: ^H2/b}", "(did you mean `h2`?)"),
    ("", "{h1/a: ^b}", "`b` has no host, and `h1/a` is on one (`h1/b`,"),
    ("", "{^n:b: h1/a}", "`n:b` has no host, and `h1/a` is on one"),
    ("", "{h1/a: ^h2/}", "`h2/` lacks the end behind its slash"),
    ("", "{h1/a: ^h2/b/c}", "there is a second `/` in `h2/b/c`"),
    ("", '{h1/a: ^"h2/n:"}', "`n:` lacks the interface behind its colon"),
    ("", "{^n:h1/a: h2/b}", "`n:h1` cannot be the name of a host"),
    ("", "{h1/a: {to: h2/b, ends: {^a: {}}}}", "`a` is no end of this link"),
    ("", "{h1/a: h2/b, h2/c: ^h1/a}", "`h1/a` is in the link `h1/a: h2/b` of line 2"),
    ("", "{h1/a: h2/b, c: ^a}", "`a` is in the link `h1/a: h2/b` of line 2 already (an end"),
    ("", "{c: a, ^h1/a: h2/b}", "(an end without a host is on every host: `HOST/a` is on"),
    ("", "{c: n:a, ^h1/n:a: h2/b}", "`n:a` is in the link `c: n:a` of line 2 already"),
    ("", "{h1/a: h2/b, ^h2/b: {to: h1/a, hold: 5s}}", "with other options"),
    ("", "{h1/a: {to: h2/b, vni: ^0}}", "`vni` is a number from 1 to 16777215, not `0`"),
    ("", "{h1/a: {to: h2/b, vni: ^16777216}}", "from 1 to 16777215, not `16777216`"),
    ("", "{h1/a: {to: h1/b, ^vni: 5}}", "`vni` is of the tunnel between two hosts"),
    ("", "{a: {to: b, ^hold: 5s}}", "`hold` is of links between two hosts; `a: b` is none"),
    ("", "{h1/a: {to: h2/b, hold: ^5}}", "`hold` is a time from 1s to 24h, not `5` (`5s`)"),
    ("", "{h1/a: {to: h2/b, hold: ^25h}}", "`hold` is a time from 1s to 24h, not `25h`"),
    ("", "{h1/a: {to: h2/b, vni: 5}, ^h3/c: {to: h2/d, vni: 5}}",
     "`h3/c: h2/d` has the VNI 5, as that of `h1/a: h2/b` of line 2 (give one of them another"),
    ("", "{a: {to: {vxlan: {remote: 203.0.113.5, vni: 5}}}, ^h3/c: {to: h2/d, vni: 5}}",
     "has the VNI 5, as that of `a: vxlan5@203.0.113.5`"),
    ("", "{h3/c: {to: h2/d, vni: 5}, ^a: {to: {vxlan: {remote: 203.0.113.5, vni: 5}}}}",
     "has the VNI 5, as that of `h3/c: h2/d`"),
    ("", "{a: {to: {vxlan: ^{vni: 5}}}}", "`vxlan` lacks `remote`"),
    ("", "{h1/a: {to: h2/b, ^mode: generic}}", "mode generic loses VLAN tags and large frames"),
    ("", "{a: {to: {vxlan: {remote: 203.0.113.5, vni: 5}}, ^mode: native}}", "mode native loses"),
    ("", "{^h1/a: h2/b}\ndefaults: {mode: generic}", "mode generic loses VLAN tags"),
    ("", "{a: {to: ^{}}}", "`to` says nothing of the other end"),
]  # fmt: skip


@pytest.mark.parametrize(("known", "links", "words"), WRONG)
def test_what_is_wrong_is_told_with_its_place(known: str, links: str, words: str) -> None:
    text = f"hosts: {known}\nlinks: {links}" if known else f"{HOSTS}links: {links}"
    before = text.partition("^")[0]
    with pytest.raises(ConfigError) as caught:
        parse(text.replace("^", ""), "f")
    (problem,) = caught.value.problems
    assert problem.line == before.count("\n") + 1
    assert problem.column == len(before.rpartition("\n")[2]) + 1
    assert words in str(problem)


def test_hosts_of_two_address_families_are_a_warning() -> None:
    """Only their link is dead, and with another address it is not: the file is no worse."""
    text = 'hosts: {h1: 198.51.100.1, h2: "2001:db8::1", h3: 198.51.100.3}\nlinks: '
    (warning,) = parse(f"{text}{{h1/a: h2/b, h1/c: h3/d}}", "f").warnings
    assert "`h1` has 198.51.100.1 and `h2` has 2001:db8::1: a VXLAN device speaks one" in warning


def test_a_file_without_hosts_has_none() -> None:
    with pytest.raises(ConfigError, match="`h1/a` is on a host, and there is no `hosts:`"):
        parse("links: {h1/a: b}", "f")
    with pytest.raises(ConfigError, match="there is no `hosts:`"):
        parse(f"hosts_key: {'x' * 16}\nlinks: {{}}", "f")
    with pytest.raises(ConfigError, match="has 15 characters, and needs at least 16"):
        parse(f"{HOSTS}hosts_key: {'x' * 15}\nlinks: {{}}", "f")


def test_so_many_hosts_are_no_lab() -> None:
    names = "".join(f"  h{n}: 10.0.{n >> 8}.{n & 255}\n" for n in range(8_193))
    with pytest.raises(ConfigError, match="there are 8,193 hosts, 8,192 are all that fit"):
        parse(f"hosts:\n{names}links: {{}}", "f")


@pytest.mark.parametrize(
    "links",
    [
        "{h1/a: h2/a, h3/a: h1/b}",  # the same name on other hosts is another interface
        "{h1/a: h1/a}",
        "{h1/a: {to: h2/b, vni: 5}, h3/c: {to: {vxlan: {remote: 203.0.113.5, vni: 5}}}}",
        f"{{h1/a: {{to: h2/b, ends: {{h1/a: {OPTION}, h2/b: {OPTION}}}}}}}",
    ],
)
def test_what_is_on_two_hosts_is_no_clash(links: str) -> None:
    assert len(wiring(links).links) > 0


def test_an_end_of_a_foreign_tunnel_is_called_by_what_leads_there() -> None:
    found = parse(
        "links:\n"
        "  a: {to: {vxlan: {remote: 203.0.113.5, vni: 1}}}\n"
        "  b: {to: {vxlan: {remote: 2001:DB8::5, vni: 2, port: 4789}}}\n",
        "f",
    )
    assert [link.b for link in found.links] == [
        Endpoint("vxlan1@203.0.113.5", tunnel=Tunnel("203.0.113.5", 1)),
        Endpoint("vxlan2@[2001:db8::5]:4789", tunnel=Tunnel("2001:db8::5", 2, 4789)),
    ]


# --------------------------------------------------------------------------- what each host does


def test_its_own_ends_are_as_any_others_and_a_tunnel_leads_to_those_of_others() -> None:
    links = "{h1/leaf1-eth1: {to: h2/spine1-eth1, vni: 7}, h2/tap0: h2/tap1, c: d}"
    assert [(link.a, link.b, link.vni) for link in part(links, "h1")] == [
        (
            Endpoint("leaf1-eth1", written="h1/leaf1-eth1", host="h1"),
            far("h2/spine1-eth1", 7),
            7,
        ),
        (Endpoint("c"), Endpoint("d"), 0),
    ]
    assert [(link.a, link.b) for link in part(links, "h2")] == [
        (
            far("h1/leaf1-eth1", 7),
            Endpoint("spine1-eth1", written="h2/spine1-eth1", host="h2"),
        ),
        (
            Endpoint("tap0", written="h2/tap0", host="h2"),
            Endpoint("tap1", written="h2/tap1", host="h2"),
        ),
        (Endpoint("c"), Endpoint("d")),
    ]
    assert [link.id for link in part(links, "h3")] == ["c:d"]


def test_an_end_in_a_node_is_in_that_node_of_its_own_host() -> None:
    found = parse(
        f"{HOSTS}nodes: {{n: {{pid: 7}}}}\nlinks: {{h1/n:e1: {{to: h2/n:e1, mtu: 9000}}}}", "f"
    )
    (link,) = links_of(found, "h2").links
    assert link.b == Endpoint("n:e1", Node("n", pid=7), written="h2/n:e1", host="h2")
    assert (link.b.interface, link.b.text, link.mtu) == ("e1", "h2/n:e1", 9000)
    assert link.a.node is None


def test_what_became_of_a_link_becomes_of_it_again() -> None:
    """Of the very same one, for the same host among the same hosts."""
    whole = wiring("{h1/a: h2/a, h2/b: h2/c, h1/c: h3/c, d: e}")
    for host in ADDRESSES:
        before = hosts.Part(whole, links_of(whole, host))
        moved = replace(whole, links=(*whole.links[1:], *wiring("{h1/f: h2/f}").links))
        again = links_of(moved, host, before)
        assert again == links_of(moved, host)
        assert {id(each) for each in again.links} & {id(each) for each in before.wiring.links}
    other = replace(whole, hosts=(*whole.hosts[:2], ("h3", "203.0.113.3")))
    assert links_of(other, "h1", before) == links_of(other, "h1")
    before = hosts.Part(whole, links_of(whole, "h1"))
    assert links_of(other, "h1", before) == links_of(other, "h1")


def test_a_file_without_hosts_is_the_same_object() -> None:
    found = parse("links: {a: b}", "f")
    assert links_of(found, "") is found


ENDS = st.builds("{}/{}".format, st.sampled_from([*ADDRESSES]), st.sampled_from(["a", "b", "n:a"]))


@given(ENDS, ENDS)
def test_all_hosts_have_one_name_one_vni_and_one_digest_of_a_link(a: str, b: str) -> None:
    """However its line is turned."""
    found = [
        link
        for text in (f"{{{a}: {b}}}", f"{{{b}: {a}}}")
        for host in ADDRESSES
        for link in part(text, host)
    ]
    assert {link.id for link in found} == {",".join(sorted((a, b)))}
    assert len({link.digest for link in found}) == 1
    assert len({link.vni for link in found}) == 1
    assert all(0 <= link.vni < 1 << 24 for link in found)
    crosses = a.partition("/")[0] != b.partition("/")[0]
    assert [(link.vni > 0, link.digest != "") for link in found] == [(crosses,) * 2] * len(found)


def test_no_tunnel_has_the_vni_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which says that there is none, and is one in 16 million."""
    monkeypatch.setattr(hosts, "sha256", lambda _: SimpleNamespace(digest=lambda: bytes(32)))
    assert hosts.vni_of(Endpoint("h1/a"), Endpoint("h2/b")) == 1


def test_a_hold_of_all_links_is_of_those_that_cross() -> None:
    """Others do not change with it."""
    found = parse(f"{HOSTS}defaults: {{hold: 5m}}\nlinks: {{h1/a: h2/b, h1/c: h1/d, e: f}}", "f")
    assert [link.hold for link in found.links] == [300, DEFAULT_HOLD, DEFAULT_HOLD]


def test_a_link_is_called_by_the_file_and_by_its_names_here() -> None:
    (link,) = part("{h2/b: h1/a}", "h1")
    names = spellings(link.id, link.a.name, link.b.name)
    assert {"h1/a,h2/b", "h2/b,h1/a", "a,h2/b", "h2/b,a", "h1/a", "h2/b", "a"} == {*names}
    assert len(names) == len({*names})


def test_each_host_impairs_what_leaves_by_its_own_end() -> None:
    links = "{h1/a: {to: h2/b, impair: {forward: {delay: 1ms}, reverse: {loss: 2%}}}}"
    (here,), (there,) = part(links, "h1"), part(links, "h2")
    assert here.impair == Impairments(reverse=Impairment(loss=0.02))
    assert there.impair == Impairments(forward=Impairment(delay=10**6))
    (none,) = part("{h1/a: {to: h2/b, impair: {forward: {delay: 1ms}}}}", "h1")
    assert none.impair is None


def test_a_link_within_a_host_is_impaired_both_ways() -> None:
    links = "{h1/a: {to: h1/b, impair: {forward: {delay: 1ms}, reverse: {loss: 2%}}}}"
    assert part(links, "h1")[0].impair == wiring(links).links[0].impair


def test_a_monitor_is_of_the_host_of_its_end() -> None:
    links = f"{{h1/tap0: {{to: h2/tap0, ends: {{h1/tap0: {OPTION}, h2/tap0: {OPTION}}}}}}}"
    for host in ("h1", "h2"):
        assert part(links, host)[0].monitors == (("tap0", MonitorAddress.parse(MONITOR)),)


BOTH = wiring("{h1/a: {to: h2/b, impair: {forward: {delay: 1ms}}}}").links[0]


@pytest.mark.parametrize(
    ("changes", "agrees"),
    [
        ({"enabled": False}, False),
        ({"one_way": True}, False),
        ({"rewrite": Rewrite.SWAP_MACS}, False),
        ({"vni": 5}, False),
        ({"impair": None}, False),
        ({"impair": Impairments(reverse=Impairment(delay=10**6))}, False),
        ({"description": "x", "labels": (("a", "b"),), "mtu": 9000, "hold": 5.0}, True),
        ({"allow_addressed": True, "carrier_of_nics": True, "monitors": ()}, True),
    ],
)
def test_both_hosts_must_agree_in_what_concerns_both(
    changes: dict[str, object], agrees: bool
) -> None:
    assert (hosts.digest(replace(BOTH, **changes)) == hosts.digest(BOTH)) is agrees


def test_a_turned_line_says_the_same_in_other_words() -> None:
    one = "{h1/a: {to: h2/b, impair: {forward: {delay: 1ms}}, rewrite: swap-macs}}"
    turned = "{h2/b: {to: h1/a, impair: {reverse: {delay: 1ms}}, rewrite: swap-macs}}"
    assert part(one, "h1")[0].digest == part(turned, "h2")[0].digest
    one_way = "{h1/a: {to: h2/b, one_way: true}}"
    other_way = "{h2/b: {to: h1/a, one_way: true}}"
    assert part(one_way, "h1")[0].digest != part(other_way, "h2")[0].digest


def test_a_digest_stays_the_same_from_release_to_release() -> None:
    """Else an upgrade of one host would take the wire down."""
    assert part("{h1/a: h2/b}", "h1")[0].digest == "1bf849d8"
    assert hosts.digest(BOTH) == "aebc1117"
    assert BOTH.vni == 12970383


# --------------------------------------------------------------------------- which host this is


def identity(*addresses: str, recorded: str = "") -> Identity:
    return Identity(lambda: addresses, lambda: recorded)


@pytest.fixture(autouse=True)
def nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")


@pytest.mark.parametrize(
    ("told", "recorded", "address", "name"),
    [
        ("h3", "h1", "198.51.100.12", "h1"),
        ("", "h3", "198.51.100.12", "h2"),
        ("", "gone", "198.51.100.13", "h1"),
        ("", "", "203.0.113.1", "h3"),
        ("", "", "127.0.0.1", "h3.example.org"),
    ],
)
def test_the_first_that_can_tell_is_believed(
    told: str, recorded: str, address: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, told)
    monkeypatch.setattr("socket.gethostname", lambda: name)
    assert identity(address, "::1", recorded=recorded).among(ADDRESSES.items()) == "h3"


def test_who_is_none_or_two_of_them_is_told_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownHostError, match=r"none of `hosts`.* name is `elsewhere` \(say whic"):
        identity().among(ADDRESSES.items())
    with pytest.raises(UnknownHostError, match=r"addresses of h1 and h2 \(say which.*--host h1"):
        identity("198.51.100.11", "198.51.100.12").among(ADDRESSES.items())
    monkeypatch.setenv(VARIABLE, "h9")
    with pytest.raises(UnknownHostError, match=r"has no `h9`.*is one of h1, h2, h3\)"):
        identity("198.51.100.11").among(ADDRESSES.items())


# --------------------------------------------------------------------------- files


def write(place: Path, links: str, known: str = HOSTS) -> None:
    place.write_text(f"{known}links: {links}\n")


def ids(files: Files) -> list[str]:
    return [link.id for link in files.read().wiring.links]


def test_files_give_the_links_of_this_host(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "{h1/a: h2/a, h2/b: h2/c}")
    reading = Files(tmp_path, identity=identity("198.51.100.11")).read()
    assert (reading.wiring.host, len(reading.wiring.links)) == ("h1", 1)
    assert len(Files(tmp_path).judge().wiring.links) == 2  # `check`, on any machine


def test_who_does_not_know_which_host_it_is_keeps_its_links(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "{h1/a: h2/a}")
    own = ["198.51.100.11"]
    files = Files(tmp_path / "a.yaml", identity=Identity(lambda: own))
    assert ids(files) == ["h1/a,h2/a"]
    own.clear()
    write(tmp_path / "a.yaml", "{h1/a: h2/b}")
    reading = files.read()
    (problem,) = reading.problems
    assert (reading.state, problem.line, problem.column) == ("rejected", 1, 1)
    assert "this machine is none of `hosts`" in problem.text
    assert [link.id for link in reading.wiring.links] == ["h1/a,h2/a"]


def test_what_is_tried_is_not_refused_for_another_file_that_is_nobodys(tmp_path: Path) -> None:
    """Whose links go on."""
    write(tmp_path / "a.yaml", "{h1/a: h2/a}")
    own = ["198.51.100.11"]
    files = Files(tmp_path, identity=Identity(lambda: own))
    files.read()
    own.clear()
    _, reading = files.imagine("b.yaml", b"links: {c: d}")
    assert reading.problems == ()
    assert [link.id for link in reading.wiring.links] == ["h1/a,h2/a", "c:d"]


@pytest.mark.parametrize("found", [Endpoint("a"), Endpoint("vethn", written="h1/a")])
def test_a_wire_in_the_kernel_is_that_of_the_file(found: Endpoint, tmp_path: Path) -> None:
    """While another file is bad, what no good file speaks of is kept; this one does."""
    write(tmp_path / "a.yaml", "{h1/a: h2/a}")
    (tmp_path / "b.yaml").write_text("links: [")
    files = Files(tmp_path, identity=identity("198.51.100.11"))
    files.keep([Link(found, Endpoint("b")), Link(Endpoint("c"), Endpoint("d"))])
    assert ids(files) == ["h1/a,h2/a", "c:d"]


def test_a_file_without_hosts_asks_nobody(tmp_path: Path) -> None:
    def fail() -> Collection[str]:
        raise AssertionError

    (tmp_path / "a.yaml").write_text("links: {a: b}\n")
    assert ids(Files(tmp_path, identity=Identity(fail))) == ["a:b"]


def test_files_of_a_directory_have_their_hosts_in_common(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "{h1/a: h2/a}", "hosts: {h1: 198.51.100.11, h2: 198.51.100.12}\n")
    write(tmp_path / "b.yaml", "{h2/b: h3/b}", "hosts: {h2: 198.51.100.12, h3: 198.51.100.13}\n")
    files = Files(tmp_path, identity=identity("198.51.100.11"))
    assert ids(files) == ["h1/a,h2/a"]
    assert dict(files.read().wiring.hosts) == ADDRESSES


@pytest.mark.parametrize(
    ("known", "links", "words"),
    [
        ("hosts: {h2: 198.51.100.99, h3: 198.51.100.13}\n", "{}", "h2 has another address in"),
        (f"{HOSTS}hosts_key: {'x' * 16}\n", "{}", "there is another `hosts_key` in"),
        ("", "{a: b}", "a is an end of a link in"),
        (HOSTS, "{h1/a: h3/b}", "h1/a is an end of a link in"),
        (HOSTS, "{h1/b: {to: h3/b, vni: 7}}", "has the VNI 7, as that of h1/a,h2/a in"),
    ],
)
def test_two_files_that_differ_are_told(known: str, links: str, words: str, tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "{h1/a: {to: h2/a, vni: 7}}")
    files = Files(tmp_path, identity=identity("198.51.100.11"))
    files.read()
    write(tmp_path / "b.yaml", links, known)
    (problem,) = files.read().problems
    assert words in problem.text
    assert problem.path == str(tmp_path / "b.yaml")
