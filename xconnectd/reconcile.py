"""One pass: observe, judge, plan, apply, observe again; and what it means, as log events.

It holds the wiring that is wanted and how links stood after the last pass (to tell what
changed), and nothing that the kernel could tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from xconnectd import observe, plan, report, status, verdict
from xconnectd.errors import XconnectError
from xconnectd.ledger import Failure
from xconnectd.log import Event, Logger
from xconnectd.model import (
    Departed,
    Filter,
    Interface,
    Link,
    Mode,
    Observed,
    Record,
    State,
    Wiring,
)
from xconnectd.observe import Index, Scope
from xconnectd.plan import Action
from xconnectd.status import LinkStatus
from xconnectd.verdict import Verdict

_ROUNDS = 4
"""A plan, its undoing where the kernel refused a part, and room for what changed meanwhile."""

_LONGEST_WAIT = 60.0


class Interfaces(observe.Interfaces, Protocol):
    """What is asked of ``links``."""

    def attach(self, interface: Interface, mode: Mode, fd: int, replacing: int | None) -> None: ...
    def detach(self, interface: Interface, mode: str, fd: int | None) -> None: ...
    def change(self, interface: Interface, setting: str, value: int) -> None: ...
    def add_filter(self, interface: Interface, direction: str, fd: int) -> None: ...
    def delete_filter(self, interface: Interface, direction: str, filter_: Filter) -> None: ...
    def namespace_name(self, nsid: int) -> str: ...
    def elsewhere(self) -> Iterator[tuple[int, Interface]]: ...


class Dataplane(observe.Maps, Protocol):
    """What is asked of ``dataplane``."""

    @property
    def xdp_fd(self) -> int: ...
    @property
    def ingress_fd(self) -> int: ...
    @property
    def egress_fd(self) -> int: ...
    def fd_of(self, program: int) -> int | None: ...
    def point(self, key: int, target: int) -> None: ...
    def unpoint(self, key: int) -> None: ...
    def steer(self, key: int, target: int) -> None: ...
    def unsteer(self, key: int) -> None: ...
    def count(self, key: int) -> None: ...
    def uncount(self, key: int) -> None: ...
    def holds(self, wanted: Mapping[int, int]) -> bool: ...
    def retire(self) -> None: ...


class Ledger(observe.Records, Protocol):
    """What is asked of ``ledger``."""

    def hold(self, record: Record) -> None: ...
    def forget(self, ifindex: int) -> None: ...
    def know_programs(self, ids: frozenset[int]) -> None: ...
    def set_departed(self, departed: tuple[Departed, ...]) -> None: ...
    def set_failures(self, failures: Mapping[str, Failure]) -> None: ...


@dataclass(frozen=True, slots=True)
class _BackOff:
    """A failed link: how often in a row, when it is due (``time.monotonic``), and why.

    ``refused`` by the kernel, rather than by our own rules, which are asked again on every look;
    then ``ends`` is what its ends were like, and another look is worth an earlier try.
    """

    times: int
    due: float
    reason: str
    refused: bool
    ends: tuple[Interface, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """The outcome of looking: what was seen, of which links, and what became of each."""

    observed: Observed
    verdicts: tuple[Verdict, ...]
    actions: tuple[Action, ...]


class Reconciler:
    """Makes the kernel agree with a wiring, as often as it is told to."""

    def __init__(
        self,
        interfaces: Interfaces,
        dataplane: Dataplane,
        ledger: Ledger,
        log: Logger,
        describe: Callable[[int], str] = "id {}".format,
    ) -> None:
        self._interfaces = interfaces
        self._dataplane = dataplane
        self._ledger = ledger
        self._log = log
        self._observer = observe.Observer(interfaces, dataplane, ledger, describe)
        self._index = Index(Wiring())
        self._statuses: dict[str, LinkStatus] = {}
        self._backoff: dict[str, _BackOff] = {}
        self._left: dict[int, int] = {}
        self._left_peers: dict[int, int] = {}

    # ------------------------------------------------------------------ what is wanted

    @property
    def wiring(self) -> Wiring:
        return self._index.wiring

    @property
    def statuses(self) -> Mapping[str, LinkStatus]:
        """How every link stood after the last pass that looked at it."""
        return self._statuses

    def want(self, wiring: Wiring) -> Scope:
        """Takes a new wiring and returns what a pass must look at to make it true."""
        before = {link.id: link for link in self.wiring.links}
        after = {link.id: link for link in wiring.links}
        self._index = Index(wiring)
        changed = [
            link
            for link in (*before.values(), *after.values())
            if before.get(link.id) != after.get(link.id)
        ]
        for link in changed:
            self._backoff.pop(link.id, None)
        return Scope(frozenset(end.name for link in changed for end in link.ends))

    def found(self, wiring: Wiring) -> tuple[Link, ...]:
        """The wires that stand in the kernel and that ``wiring`` does not speak of."""
        observed, _ = self._observer.everything(Wiring())
        named = {end.name for link in wiring.links for end in link.ends}
        return tuple(
            link
            for link in observe.wiring_in_kernel(observed).links
            if named.isdisjoint(end.name for end in link.ends)
        )

    def concerns(self, ifindex: int, names: Iterable[str]) -> bool:
        """Whether an event on this interface can matter to any link."""
        if ifindex in self._ledger.records() or any(name in self._index for name in names):
            return True
        return any(gone.record.name in names for gone in self._ledger.departed())

    def holds(self, ifindex: int) -> bool:
        return ifindex in self._ledger.records()

    # ------------------------------------------------------------------ passes

    def look(
        self, scope: Scope | None = None, refused: Mapping[str, str] | None = None
    ) -> Seen:
        """What a pass over ``scope`` (everything if None) would do; changes nothing.

        ``refused`` are links that failed in this very pass and are to be undone.
        """
        if scope is None:
            observed, links = self._observer.everything(self.wiring)
        else:
            observed, links = self._observer.narrow(self._index, scope)
        failed = self._still_failed(links, observed) | dict(refused or {})
        verdicts = verdict.judge(links, observed, failed)
        actions = plan.plan(verdict.roles(verdicts), observed)
        return Seen(observed, tuple(verdicts), actions)

    def run(self, scope: Scope | None, trigger: str) -> None:
        """Makes the links in ``scope`` (all if None) agree with the wiring, and logs changes."""
        started = time.monotonic()
        done: list[Action] = []
        refused: dict[str, str] = {}
        seen = self.look(scope)
        if self._welcome_back(seen.observed):
            seen = self.look(scope)
        for _ in range(_ROUNDS):
            if not seen.actions:
                break
            done += self._apply(seen.actions, refused)
            seen = self.look(scope, refused)
        statuses = [status.assess(each, seen.observed) for each in seen.verdicts]
        self._remember(scope, seen, statuses, refused)
        self._report(statuses, done, trigger, time.monotonic() - started)

    def release(self, names: Iterable[str] | None = None) -> list[str]:
        """Lets go of every end (or of the named ones and their partners); returns what failed."""
        if names is None:
            self._index = Index(Wiring())
            scope = None
        else:
            scope = Scope(frozenset(names))
        seen = self.look(scope)
        problems: list[str] = []
        for action in seen.actions:
            try:
                self._do(action)
            except (XconnectError, OSError) as error:
                problems.append(str(error))
        return problems

    # ------------------------------------------------------------------ ends that leave

    def depart(self, ifindex: int, nsid: int | None, new_ifindex: int | None) -> None:
        """An interface left this namespace. If our program went along its number is no key
        again until that program is gone, and what we changed is remembered for its return."""
        self._dataplane.unpoint(ifindex)
        self._dataplane.unsteer(ifindex)
        record = self._ledger.records().get(ifindex)
        if record is None or nsid is None or new_ifindex is None:
            return
        device = self._interfaces.at(new_ifindex, nsid)
        if device is not None and device.xdp:
            name = self._interfaces.namespace_name(nsid)
            gone = Departed(record, device.xdp[0].mode, nsid, new_ifindex, name)
            self._ledger.set_departed((*self._ledger.departed(), gone))
            self._log.warning(
                Event.END_DEPARTED,
                interface=record.name,
                ifindex=ifindex,
                reason=f"it left with our XDP program; take it off there: {gone.remedy}",
            )

    def find_departed(self) -> None:
        """Those that left while no daemon was there to see it."""
        here = self._interfaces.all()
        missing = {
            record.mac: record
            for record in self._ledger.records().values()
            if record.ifindex not in here or not record.is_of(here[record.ifindex])
        }
        if not missing:
            return
        ours = self._dataplane.programs.ours | self._ledger.programs()
        for nsid, device in self._interfaces.elsewhere():
            record = missing.get(device.mac)
            if record and any(xdp.program in ours for xdp in device.xdp):
                self.depart(record.ifindex, nsid, device.ifindex)

    def _welcome_back(self, observed: Observed) -> bool:
        """Takes up the records of departed devices that are here again."""
        by_mac = {
            each.mac: each for each in observed.interfaces.values() if observed.runs_ours(each)
        }
        back = [gone for gone in self._ledger.departed() if gone.record.mac in by_mac]
        for gone in back:
            here = by_mac[gone.record.mac]
            self._ledger.hold(replace(gone.record, ifindex=here.ifindex, name=here.name))
        if back:
            self._ledger.set_departed(
                tuple(gone for gone in self._ledger.departed() if gone not in back)
            )
        return bool(back)

    # ------------------------------------------------------------------ what is due

    def has_drifted(self) -> bool:
        """Whether a map is not as the last pass left it. Cheap enough for every second."""
        if not self._dataplane.holds(self._left):
            return True
        return bool(self._left_peers) and self._dataplane.peers() != self._left_peers

    def next_retry(self) -> float | None:
        """When the next failed link is due (``time.monotonic``)."""
        return min((each.due for each in self._backoff.values()), default=None)

    def due(self) -> Scope:
        """The failed links whose time has come."""
        now = time.monotonic()
        links = [
            link
            for link in self.wiring.links
            if link.id in self._backoff and self._backoff[link.id].due <= now
        ]
        return Scope(frozenset(end.name for link in links for end in link.ends))

    # ------------------------------------------------------------------ applying

    def _apply(self, actions: Iterable[Action], refused: dict[str, str]) -> list[Action]:
        """Does what it can. A link of which the kernel refuses a step is left to be undone."""
        done: list[Action] = []
        for action in actions:
            if action.link in refused:
                continue
            try:
                self._do(action)
                done.append(action)
            except (XconnectError, OSError) as error:
                if action.link:
                    refused[action.link] = str(error)
                else:
                    self._log.warning(
                        Event.RELEASE_FAILED, interface=action.interface.name, reason=str(error)
                    )
        return done

    def _do(self, action: Action) -> None:
        end = action.interface
        match action:
            case plan.Hold(record=record):
                self._ledger.hold(record)
                self._dataplane.count(end.ifindex)
            case plan.Forget():
                self._dataplane.uncount(end.ifindex)
                self._ledger.forget(end.ifindex)
            case plan.Set(setting=setting, value=value):
                self._interfaces.change(end, setting, value)
            case plan.Point(mode=Mode.TC, target=target):
                self._dataplane.steer(end.ifindex, target)
            case plan.Point(target=target):
                self._dataplane.point(end.ifindex, target)
            case plan.Cut(mode=Mode.TC):
                self._dataplane.unsteer(end.ifindex)
            case plan.Cut():
                self._dataplane.unpoint(end.ifindex)
            case plan.Attach(mode=mode, replacing=old):
                self._attach(end, mode, old)
            case plan.Detach(mode=mode, program=program):
                self._interfaces.detach(end, mode, self._dataplane.fd_of(program))
            case plan.AddFilter(direction=direction):
                self._interfaces.add_filter(end, direction, self._filter_fd(direction))
            case plan.DeleteFilter(direction=direction, filter=filter_):
                self._interfaces.delete_filter(end, direction, filter_)
            case _:
                raise NotImplementedError(action)

    def _attach(self, end: Interface, mode: Mode, old: int) -> None:
        """Over an older program of ours without a gap, as long as it can still be named."""
        old_fd = self._dataplane.fd_of(old) if old else None
        if old and old_fd is None:
            self._interfaces.detach(end, mode, None)
        self._interfaces.attach(end, mode, self._dataplane.xdp_fd, old_fd)

    def _filter_fd(self, direction: str) -> int:
        return (
            self._dataplane.ingress_fd if direction == "ingress" else self._dataplane.egress_fd
        )

    # ------------------------------------------------------------------ what came of it

    def _still_failed(self, links: Iterable[Link], observed: Observed) -> dict[str, str]:
        """Links that the kernel refused and that are not to be tried now.

        Undoing one makes events too, so an event alone is no reason to try again: the ends must
        look different from when they were left.
        """
        now = time.monotonic()
        failed = {}
        for link in links:
            held = self._backoff.get(link.id)
            if held and held.refused and now < held.due and held.ends == _ends(link, observed):
                failed[link.id] = held.reason
        return failed

    def _remember(
        self,
        scope: Scope | None,
        seen: Seen,
        statuses: Iterable[LinkStatus],
        refused: Mapping[str, str],
    ) -> None:
        self._remember_entries(scope, seen.observed)
        self._ledger.set_departed(seen.observed.departed)
        for each in statuses:
            self._remember_failure(each, seen.observed, each.link.id in refused)
        wanted = {link.id for link in self.wiring.links}
        self._backoff = {link: held for link, held in self._backoff.items() if link in wanted}
        self._ledger.set_failures(
            {
                link: Failure(held.reason, round(_wall_clock(held.due), 1))
                for link, held in self._backoff.items()
            }
        )
        if scope is None and not seen.actions:  # nothing runs an older program any more
            self._ledger.know_programs(seen.observed.programs.ours)
            self._dataplane.retire()

    def _remember_entries(self, scope: Scope | None, observed: Observed) -> None:
        touched = observed.interfaces.keys() | observed.records.keys() | observed.entries.keys()
        for left, now in ((self._left, observed.entries), (self._left_peers, observed.peers)):
            for key in [key for key in left if scope is None or key in touched]:
                del left[key]
            left.update(now)

    def _remember_failure(self, now: LinkStatus, observed: Observed, refused: bool) -> None:
        if now.state is not State.FAILED:
            self._backoff.pop(now.link.id, None)
            return
        held = self._backoff.get(now.link.id)
        if held and held.reason == now.reason and time.monotonic() < held.due and not refused:
            return
        times = held.times + 1 if held else 1
        due = time.monotonic() + min(2.0 ** (times - 1), _LONGEST_WAIT)
        refused = refused or bool(held and held.refused and held.reason == now.reason)
        ends = _ends(now.link, observed)
        self._backoff[now.link.id] = _BackOff(times, due, now.reason, refused, ends)

    def _report(
        self, statuses: Iterable[LinkStatus], done: list[Action], trigger: str, seconds: float
    ) -> None:
        wanted = {link.id for link in self.wiring.links}
        gone = [each for link, each in self._statuses.items() if link not in wanted]
        log = self._log.bind(trigger=trigger, config_hash=self.wiring.hash)
        milliseconds = round(seconds * 1000, 2)
        after = [self._with_retry(each) for each in statuses]
        for change in report.changes(self._statuses, after, gone, done, trigger):
            log.log(change.level, change.event, **change.fields, duration_ms=milliseconds)
        self._statuses |= {each.link.id: each for each in after}
        for each in gone:
            del self._statuses[each.link.id]
        log.debug(Event.PASS_DONE, actions=len(done), duration_ms=milliseconds)

    def _with_retry(self, each: LinkStatus) -> LinkStatus:
        held = self._backoff.get(each.link.id)
        return replace(each, retry=_wall_clock(held.due)) if held else each


def _ends(link: Link, observed: Observed) -> tuple[Interface, ...]:
    return tuple(filter(None, map(observed.find, link.ends)))


def _wall_clock(monotonic: float) -> float:
    return time.time() + monotonic - time.monotonic()
