"""The Python API: wires for as long as a ``with`` block lasts, in this network namespace.

    from xconnectd.api import Xconnect

    with Xconnect({"veth0": "veth1"}) as wires:
        wires.update({"veth0": "veth2"})
        print(wires.states())

It does what the daemon does, once per call: no thread watches the kernel meanwhile, so call
``sync`` after interfaces came or went. ``links`` is what stands below ``links:`` in the file.
Events go where the program's structlog has them go; without any set-up, warnings go to stderr.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self

from xconnectd import events, pcap_filter
from xconnectd.config import parser
from xconnectd.errors import XconnectError
from xconnectd.events import Trigger
from xconnectd.model import Carrier, State, Wiring
from xconnectd.reconcile.link_state import LinkStatus
from xconnectd.runtime import Engine

Links = Mapping[str, Any]
"""Pairs as in the file: ``{"a": "b"}`` or ``{"a": {"to": "b", "mode": "tc"}}``."""


class Xconnect:
    """Cross-connects pairs of interfaces until ``close``, which leaves everything as found.

    Raises:
        ConfigError: ``links`` is not what a file could hold.
        BusyError: a daemon, or another ``Xconnect``, holds this network namespace.
        DataplaneError, PrivilegeError: the BPF part cannot be loaded.
        OSError: the kernel or the disk refused a look; what was connected stays, as after a crash.
    """

    def __init__(self, links: Links) -> None:
        wiring = _wiring(links)
        with ExitStack() as undo:
            self._engine = undo.enter_context(Engine.take(events.of_application()))
            self._reconciler = self._engine.reconciler
            self._reconciler.want(wiring)
            self._reconciler.resync(Trigger.START)
            undo.pop_all()
        self._closed = False

    def update(self, links: Links) -> None:
        """Wants these links instead. Those that stay lose no frame.

        Raises:
            ConfigError: refused as a whole; the wires stay as they are.
            XconnectError: it is closed.
        """
        self._demand_open()
        scope = self._reconciler.want(_wiring(links))
        if scope:
            self._reconciler.run(scope, Trigger.CONFIG)

    def sync(self) -> None:
        """Looks at everything again and repairs what has drifted or come into being.

        Raises:
            XconnectError: it is closed.
        """
        self._demand_open()
        self._reconciler.run(None, Trigger.NETLINK)
        self._reconciler.tell_repeated(at_once=True)

    def _demand_open(self) -> None:
        if self._closed:  # its descriptors may be other people's by now
            raise XconnectError("these wires are closed: make another Xconnect")

    def status(self) -> tuple[LinkStatus, ...]:
        """Every link as the last call left it."""
        return tuple(self._reconciler.statuses.values())

    def states(self) -> dict[str, State]:
        """The state of every link by its id (the two names in order, ``a:b``)."""
        return {each.link.id: each.state for each in self.status()}

    def close(self) -> None:
        """Takes everything down and puts everything back. Further calls do nothing.

        Raises:
            XconnectError: not everything could be put back. It is recorded: another ``Xconnect``,
                a daemon or ``xconnectd detach`` will try again.
        """
        if self._closed:
            return
        self._closed = True
        with self._engine:
            if problems := self._engine.detach(Trigger.SIGNAL):
                raise XconnectError("; ".join(problems))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wiring(links: Links) -> Wiring:
    """Between two calls nobody sees that a far end comes up, so no end is set down unasked."""
    defaults = {"carrier": Carrier.INDEPENDENT}
    text = json.dumps({"defaults": defaults, "links": dict(links)})
    return parser.parse(text, "links", pcap_filter.fault)
