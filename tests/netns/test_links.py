"""What ``links`` sees of interfaces on the real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from xconnectd.links import Links

from .lab import Lab, inside, run

@pytest.fixture
def links(lab: Lab) -> Iterator[Links]:
    with closing(inside(lab.host, Links)) as opened:
        yield opened


def _own_id(links: Links) -> int | None:
    with Path("/proc/thread-self/ns/net").open() as here:
        return links.nsid_of(here.fileno())


def test_our_own_namespace_is_not_elsewhere(lab: Lab, links: Links) -> None:
    """It gets an id for itself as soon as somebody looks at what stands on it from elsewhere."""
    box = lab.namespace("box")
    lab.ip("link", "add", "va", "type", "ifb")
    lab.ip("link", "add", "link", "va", "name", "mv0", "type", "macvlan")
    lab.ip("link", "set", "mv0", "netns", box)
    uses = inside(lab.host, lambda: links.uses(links.all().values()))
    assert uses[lab.ifindex("va")] == ("mv0 of another namespace stands on it",)
    assert inside(lab.host, lambda: _own_id(links)) is not None
    names = inside(lab.host, lambda: sorted(each.name for _, each in links.elsewhere()))
    assert names == ["lo", "mv0"]


def test_what_stands_elsewhere_on_another_device_of_that_number(lab: Lab, links: Links) -> None:
    """As long as ours has no id for itself, nothing of another namespace stands on it."""
    lab.veth("vb")
    lab.ip("link", "add", "va", "index", "77", "type", "ifb")
    away = lab.namespace("away")
    lab.veth("vc", namespace=away)
    run("ip", "link", "add", "under", "index", "77", "type", "ifb", namespace=away)
    lower = ("link", "add", "link", "under", "name", "mv0", "type", "macvlan")
    run("ip", *lower, namespace=away)
    found = links.by_name("va")
    assert found is not None
    assert inside(lab.host, lambda: links.uses([found])) == {77: ()}
