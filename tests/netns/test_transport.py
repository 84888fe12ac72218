"""Many requests in one go: the answers that each has alone, and no refusal is missed."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from xconnectd.netlink import transport, uapi
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.transport import DO, DUMP, GET, NoDeviceError, Question, Route

from .lab import PROG_TC, Lab, code, inside, run

_LINK = transport.get_link_request(GET, (transport.SKIP_STATISTICS,))
_LINKS = transport.get_link_request(DUMP, (transport.SKIP_STATISTICS,))
_QDISCS = transport.tc_request(uapi.RTM_GETQDISC, DUMP)
_NOBODY = 1 << 30


@pytest.fixture
def route(lab: Lab) -> Iterator[Route]:
    """In a host with 200 interfaces: a dump of all is longer than what one read gives."""
    lab.hush()
    lab.batch(f"link add a{n} type veth peer name b{n}" for n in range(100))
    with closing(inside(lab.host, Route)) as opened:
        yield opened


def everybody(route: Route) -> list[int]:
    return [transport.ifindex_of(message) for message in route.ask(_LINKS)]


def bodies(answers: list[list[bytes]]) -> list[list[bytes]]:
    """Without the headers, which are numbered."""
    return [[message[transport.HEADER.size :] for message in answer] for answer in answers]


def one_by_one(route: Route, questions: list[Question]) -> list[list[bytes]]:
    return [route.ask_each([each], unless=(errno.ENODEV,))[0] for each in questions]


def test_many_questions_have_the_answers_that_each_has(route: Route) -> None:
    """Long dumps among them, of which the kernel does one at a time, and an interface gone."""
    known = everybody(route)
    questions: list[Question] = [(_LINK, ifindex) for ifindex in (*known[:50], _NOBODY, *known)]
    questions[5:5] = [(_LINKS, None), (_QDISCS, None), (_LINKS, None)]
    together = route.ask_each(questions, unless=(errno.ENODEV,))
    assert bodies(together) == bodies(one_by_one(route, questions))
    with pytest.raises(NoDeviceError):
        route.ask_each(questions)
    assert everybody(route) == known  # nothing of those is taken for the answer to another


def test_dumps_that_do_not_end_at_once_are_answered_too(lab: Lab, route: Route) -> None:
    """Those of filters that are there: the first of a send hinders all others."""
    some = [f"a{n}" for n in (*range(50), *range(80, 100))]
    lines = [f"qdisc add dev {name} clsact" for name in some]
    passes = lab.program(PROG_TC, (code(0xB7), code(0x95)))
    lines += [f"filter add dev {name} ingress bpf da pinned {passes}" for name in some]
    run("tc", "-batch", "-", namespace=lab.host, text="\n".join(lines) + "\n")
    ingress = transport.CLSACT_PARENTS["ingress"]
    request = transport.tc_request(uapi.RTM_GETTFILTER, DUMP, parent=ingress)
    questions = [(request, each.ifindex) for each in Interfaces(route).find(*some)]
    together = route.ask_each(questions)
    assert bodies(together) == bodies(one_by_one(route, questions))
    assert all(together)


def test_answers_that_find_no_room_are_asked_for_again(route: Route) -> None:
    route._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    questions: list[Question] = [(_LINK, ifindex) for ifindex in everybody(route)]
    assert bodies(route.ask_each(questions)) == bodies(one_by_one(route, questions))


def _named(name: str) -> bytes:
    return transport.link_request(uapi.RTM_SETLINK, DO, (("IFLA_IFNAME", name),))


def test_a_change_that_is_refused_hinders_no_other(lab: Lab, route: Route) -> None:
    known = [each.ifindex for each in Interfaces(route).find(*(f"a{n}" for n in range(100)))]
    changes: list[Question] = [(_named(f"c{n}"), ifindex) for n, ifindex in enumerate(known)]
    changes[70], changes[3] = (_named("lo"), known[70]), (_named("c3"), _NOBODY)
    refused = route.do_each(changes)
    assert {number: error.errno for number, error in refused.items()} == {
        3: errno.ENODEV,
        70: errno.EEXIST,
    }
    assert {f"c{n}" for n in range(100)} - set(lab.links()) == {"c3", "c70"}


def test_refusals_that_find_no_room_are_no_success(route: Route) -> None:
    """Which of them were refused nobody knows then."""
    route._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    refused = route.do_each([(_named("c"), _NOBODY)] * 64)
    assert set(refused) == set(range(64))
    assert errno.ENOBUFS in {error.errno for error in refused.values()}
