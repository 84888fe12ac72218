"""Which nodes are there, to tell when one appears or is gone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from xconnectd.events import Event
from xconnectd.model import Node, NodeNamespace
from xconnectd.reconcile.ports import Nodes
from xconnectd.reconcile.transitions import Report


class NodePresence:
    """What was told of the nodes of the wiring; of one that is wanted anew nothing is told."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._told: dict[Node, NodeNamespace] = {}

    def want(self, nodes: Iterable[Node]) -> None:
        """These are in the wiring now."""
        self._nodes.want(nodes)
        self._told = {each: self._told.get(each) or self._nodes.find(each) for each in nodes}

    def changes(self, names: Collection[str]) -> Iterator[Report]:
        """What became of the nodes with these names, of which there is news."""
        for node in [each for each in self._told if each.name in names]:
            was, now = self._told[node], self._nodes.find(node)
            self._told[node] = now
            if now.path == was.path and now != was:
                continue  # other words for the same
            if now.path and (was.path or was.certain):
                reason = "it has another network namespace" if was.path else now.path
                yield Report(Event.NODE_APPEARED, {"node": node.name, "reason": reason})
            elif was.path and now.certain:
                yield Report(Event.NODE_GONE, {"node": node.name, "reason": now.reason})
