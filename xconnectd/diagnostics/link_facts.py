"""Gathers the facts of links, beyond what a pass of the daemon looks at. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from xconnectd import underlay
from xconnectd.control import client
from xconnectd.diagnostics import ping
from xconnectd.diagnostics.facts import Answer, FarSide, LinkFacts
from xconnectd.model import Endpoint, Interface, Tunnel
from xconnectd.netlink import netns
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.netns import Namespace
from xconnectd.reconcile.evaluate import Evaluation
from xconnectd.runtime import Engine
from xconnectd.status import collector
from xconnectd.status.collector import Look
from xconnectd.status.document import Keepalives

_LISTEN: Final = 2.5
"""Seconds: the daemon of another host says something once in each, and late on a busy machine."""


class LinkGatherer:
    """Looks at far ends too, and into them."""

    def __init__(self, engine: Engine, look: Look) -> None:
        self._interfaces: Interfaces = engine.interfaces
        self._look = look
        self._file = str(look.files.path)
        self._repair = client.repair_here(self._file)
        self._asked: dict[tuple[str, int], Answer | None] = {}
        self._passed = {
            ifindex: counted.passed_to_host
            for ifindex, counted in engine.counters().items()
            if counted.passed_to_host
        }

    @cached_property
    def _home(self) -> str:
        """How ``ip`` moves an interface here: by name, else by the process of the shell."""
        return netns.own_name() or "$$"

    @cached_property
    def namespaces(self) -> Mapping[int, Namespace]:
        """By their ids here; those of nodes where these were found."""
        places = self._look.seen.observed.nodes
        nodes = {
            place.nsid: Namespace(Path(place.path), end.node.name)
            for each in self._look.seen.evaluations
            for end in each.link.ends
            if end.node and (place := places.get(end.name)) and place.nsid is not None
        }
        return netns.known(self._interfaces.nsid_of) | nodes

    def gather(self, evaluation: Evaluation, *, enter: bool = False) -> LinkFacts:
        """``enter``: also what only a visit to the far ends' namespaces tells."""
        observed, far = self._look.seen.observed, {}
        nodes = {observed.names.get(end.name): end.node for end in evaluation.link.ends}
        for end in evaluation.ends:
            node = nodes.get(end.ifindex)
            if side := self._far_side(end, enter=enter):
                far[end.ifindex] = replace(side, node=node.name) if node else side
        facts = LinkFacts(
            evaluation,
            observed,
            far,
            self._look.failures.get(evaluation.link.id, ""),
            self._repair,
            self._file,
            self._home,
            self._passed,
        )
        there = evaluation.link.tunnel_end
        return self._with_tunnel(facts, there, there.tunnel) if there and there.tunnel else facts

    def _with_tunnel(self, facts: LinkFacts, end: Endpoint, tunnel: Tunnel) -> LinkFacts:
        heard = facts.observed.heard.get(end.text)
        now = self._meanwhile.get(end.text) if heard and heard.alive is False else None
        mute = now is not None and not (now.echoed or now.received)
        return replace(
            facts,
            way=underlay.way_to(tunnel.remote, tunnel.port),
            keepalives=now,
            answer=self._answer(tunnel) if mute else None,
        )

    @cached_property
    def _meanwhile(self) -> Mapping[str, Keepalives]:
        """By the texts of ends on other hosts, what was sent and came since the look at links."""
        before = self._look.seen.observed.heard
        time.sleep(_LISTEN)
        now = collector.heard()
        return {
            end: Keepalives(
                there.sent - then.sent,
                there.echoed - then.echoed,
                there.received - then.received,
                there.unverified - then.unverified,
            )
            for end, then in before.items()
            if (there := now.get(end))
        }

    def _answer(self, tunnel: Tunnel) -> Answer | None:
        place = tunnel.remote, tunnel.port
        if place not in self._asked:
            self._asked[place] = ping.ask(*place)
        return self._asked[place]

    def _far_side(self, end: Interface, *, enter: bool) -> FarSide | None:
        if end.far is None:
            return None
        interface = self._interfaces.at(end.far.ifindex, end.far.nsid)
        if interface is None:
            return None
        if end.far.nsid is None:
            return FarSide(interface, "", _features(None, interface.name) if enter else None)
        place = self.namespaces.get(end.far.nsid)
        if place is None:
            return FarSide(interface, None)
        features = _features(place, interface.name) if enter else None
        return FarSide(interface, place.prefix, features)


def _features(place: Namespace | None, name: str) -> frozenset[str] | None:
    from xconnectd.netlink import ethtool

    try:
        return netns.inside(place, lambda: ethtool.features(name))
    except OSError:
        return None
