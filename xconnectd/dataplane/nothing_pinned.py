"""The dataplane where nothing of ours is pinned: nothing to read, nothing to write to."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from xconnectd.dataplane.programs import Unpinned
from xconnectd.errors import DataplaneError
from xconnectd.model import Left, Programs


class NothingPinned:
    """In place of ``Dataplane``, for looks and for taking off what is left.

    What still runs is known by its id from the ledger, and comes off all the same.
    """

    programs = Programs()
    fds: Mapping[str, int] = dict.fromkeys(
        (
            *("xdp", "ingress", "egress", "swap_xdp", "swap_ingress"),
            *("tunnel_ingress", "tunnel_egress"),
        ),
        -1,
    )

    def __init__(self) -> None:
        self._unpinned = Unpinned()

    def fd_of(self, program: int) -> int | None:
        return self._unpinned.fd_of(program)

    def close(self) -> None:
        self._unpinned.close()

    def look_up(
        self, _ends: Collection[int] | None = None
    ) -> tuple[dict[int, int], dict[int, int], None]:
        return {}, {}, None

    def peers(self) -> dict[int, int]:
        return {}

    def holds(self, left: Left) -> bool:
        return not left.entries and not left.peers

    def _refuse(self, *_: int) -> None:
        raise DataplaneError("open", "nothing is loaded")

    def filter(self, _expression: str) -> tuple[int, int]:
        raise DataplaneError("open", "nothing is loaded")

    point = steer = count = guard = listen_to_drivers = renew = _refuse

    def older_forward(self) -> bool:
        return False

    def _nothing(self, *_: int) -> None:
        return

    unpoint = unsteer = uncount = unguard = empty_older = retire = _nothing
