"""Carries out the actions of a plan: the one place that turns them into calls."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from xconnectd.errors import LinkError, NodeGoneError, ProgramGoneError, XconnectError
from xconnectd.model import DROP_HANDLE, FarSetting, Interface, Mode, Record, Refusal
from xconnectd.reconcile import actions
from xconnectd.reconcile.actions import Action
from xconnectd.reconcile.evaluate import Refused
from xconnectd.reconcile.made_veths import FarRefusal
from xconnectd.reconcile.ports import Changes, Dataplane, Ledger

_UNFIT: Final = frozenset(
    (errno.EOPNOTSUPP, errno.EINVAL, errno.ERANGE, errno.ENOMEM, errno.ENOSPC, errno.EFBIG)
)
"""What drivers say against native XDP on a device as it is set up: its MTU, its queues."""

_FEW: Final = 7
"""So many actions of a kind are done one after the other; more go out together."""
_MANY: Final = 512
"""After so many actions that were done together, what the kernel told of them is received: some
4 MB, half of what its buffer holds (netlink.monitor)."""
_OF_LINKS: Final = (actions.Set, actions.Attach, actions.Detach)
_TOGETHER: Final[Mapping[type[Action], tuple[type[Action], ...]]] = {
    **{
        each: (each,)
        for each in (
            actions.Hold,
            actions.Forget,
            actions.AddFilter,
            actions.DeleteFilter,
        )
    },
    **dict.fromkeys(_OF_LINKS, _OF_LINKS),
}
"""What is done in one go with what."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What the kernel or the disk refused, with the reason.

    ``links`` by id; ``stuck`` by ifindex are ends without a link that could not be put back, each
    with its name and the reason; ``far`` what a far end was refused, by the text of the end.
    """

    links: dict[str, Refused] = field(default_factory=dict)
    stuck: dict[int, tuple[str, str]] = field(default_factory=dict)
    far: dict[str, FarRefusal] = field(default_factory=dict)

    def refuse(self, action: Action, words: str) -> None:
        first = self.links.get(action.link)
        unheld = first.unheld | {action.interface.ifindex} if first else frozenset()
        self.links[action.link] = Refused(first.words if first else words, unheld)


class Executor:
    """Does actions in their order; what the kernel or the disk refuses is noted, not raised.

    Many of one kind that follow one another are done in one go.
    """

    def __init__(
        self,
        changes: Changes,
        dataplane: Dataplane,
        ledger: Ledger,
        listen: Callable[[], None] = lambda: None,
    ) -> None:
        """``listen`` is called now and then where there is much to do."""
        self._changes = changes
        self._dataplane = dataplane
        self._ledger = ledger
        self._listen = listen
        self._unheard = 0

    def apply(self, steps: Iterable[Action], trouble: Trouble) -> list[Action]:
        """Does what it can and returns what was done; what was refused is put in ``trouble``.

        The further steps of a link of which one is refused are left out. What is refused of a
        link that is in ``trouble`` already is the holding of an end. An end that is detached
        is detached as far as possible, and its record kept for another try. A driver that refuses
        the mode we chose is no trouble: that is recorded, and the next plan has another mode.
        """
        todo, done = deque(steps), list[Action]()
        trouble.stuck.clear()
        while todo:
            try:
                self._do_all(todo, done, trouble)
            except (XconnectError, OSError) as error:
                self._leave_out([(todo.popleft(), error)], todo, trouble)
        return done

    def _leave_out(
        self,
        refused: Iterable[tuple[Action, Exception]],
        todo: deque[Action],
        trouble: Trouble,
    ) -> None:
        """Notes what was refused, and takes from ``todo`` what may not follow."""
        links: set[str] = set()
        for action, error in refused:
            end = action.interface
            if not action.link:
                trouble.stuck.setdefault(end.ifindex, (end.name, str(error)))
            elif action.link not in links:
                links.add(action.link)
                if not self._has_another_mode(action, error):
                    trouble.refuse(action, str(error))
        kept = [
            each
            for each in todo
            if each.link not in links
            if not (isinstance(each, actions.Forget) and each.interface.ifindex in trouble.stuck)
        ]
        todo.clear()
        todo.extend(kept)

    def _has_another_mode(self, action: Action, error: Exception) -> bool:
        """Whether a driver refuses native XDP that was our choice, which is recorded."""
        ours = isinstance(action, actions.Attach) and action.is_our_choice
        if not (ours and isinstance(error, LinkError) and error.errno in _UNFIT):
            return False
        end = action.interface
        record = self._ledger.records[end.ifindex]
        try:
            self._ledger.hold(record._replace(refusal=Refusal(str(error), end.mtu)))
        except OSError:
            return False
        return True

    def _do_all(self, todo: deque[Action], done: list[Action], trouble: Trouble) -> None:
        """Takes one after the other from ``todo``; what is refused stays its first."""
        changes, plane = self._changes, self._dataplane
        while todo:
            action = todo[0]
            end = action.interface
            match action:
                case _ if len(todo) > _FEW and type(todo[_FEW]) in _TOGETHER.get(type(action), ()):
                    self._do_many(todo, done, trouble)
                    continue
                case actions.Point() | actions.Cut() | actions.Guard() | actions.Unguard():
                    self._write_entries(todo, done)
                    continue
                case actions.Hold(record=record):
                    self._hold(record)
                case actions.Forget():
                    self._forget(end.ifindex)
                case actions.Set(setting=setting, value=value):
                    changes.change(end, setting, value)
                case actions.Attach(mode=mode, replacing=old, role=role):
                    self._attach(end, mode, old, role)
                case actions.Detach(mode=mode, program=program):
                    self._detach(end, mode, program)
                case actions.AddFilter(direction=direction, replacing=replacing, role=role):
                    changes.add_filter(end, direction, plane.fds[role], replacing=replacing)
                case actions.DeleteFilter(direction=direction, filter=filter_):
                    changes.delete_filter(end, direction, filter_)
                case actions.SetFar() | actions.Unmake():
                    self._do_together(action, todo, done, trouble)
                    continue
                case _:
                    self._do_seldom(action)
            done.append(todo.popleft())

    def _do_many(self, todo: deque[Action], done: list[Action], trouble: Trouble) -> None:
        """As many of one kind as follow one another."""
        steps = _first(todo, _TOGETHER[type(todo[0])])
        if isinstance(steps[0], actions.Hold):
            refused = self._hold_all(
                [each.record for each in steps if isinstance(each, actions.Hold)]
            )
        elif isinstance(steps[0], actions.Forget):
            refused = self._forget_all([each.interface.ifindex for each in steps])
        else:
            refused = self._changes.each([self._call(each) for each in steps])
        for number, step in enumerate(steps):
            todo.popleft()
            if number not in refused:
                done.append(step)
        if refused:
            self._leave_out(
                [(steps[number], why) for number, why in refused.items()], todo, trouble
            )
        self._unheard += len(steps)
        if self._unheard >= _MANY:
            self._unheard = 0
            self._listen()

    def _call(self, action: Action) -> Callable[[], None]:
        """What changes an interface as one of ``_TOGETHER`` wants it."""
        end, changes = action.interface, self._changes
        match action:
            case actions.Set(setting=setting, value=value):
                return partial(changes.change, end, setting, value)
            case actions.Attach(mode=mode, replacing=old, role=role):
                return partial(self._attach, end, mode, old, role)
            case actions.Detach(mode=mode, program=program):
                return partial(self._detach, end, mode, program)
            case actions.AddFilter(direction=direction, replacing=replacing, role=role):
                fd = self._dataplane.fds[role]
                return partial(changes.add_filter, end, direction, fd, replacing=replacing)
            case actions.DeleteFilter(direction=direction, filter=filter_):
                return partial(changes.delete_filter, end, direction, filter_)
        raise NotImplementedError(action)

    def _detach(self, end: Interface, mode: Mode, program: int) -> None:
        with suppress(ProgramGoneError):  # somebody has put another in its place
            self._changes.detach(end, mode, self._dataplane.fd_of(program))

    def _do_seldom(self, action: Action) -> None:
        """What a plain link never asks for."""
        match action:
            case actions.Impair(shape=shape):
                self._changes.impair(action.interface, shape)
            case actions.AddDrop():
                self._add_drop(action)
            case actions.Unlearn():
                self._changes.unlearn(action.interface)
            case actions.HoldMade(made=made):
                self._ledger.hold_made(made)
            case actions.MakeTunnel(made=made, tunnel=tunnel):
                self._changes.make_tunnel(made, tunnel)
            case actions.MakeVeth(made=made, path=path, far_name=far_name, far_mac=far_mac):
                with suppress(NodeGoneError):  # the next look says so
                    self._changes.make_veth(made, path, far_name, far_mac)
            case _:
                raise NotImplementedError(action)

    def _do_together(
        self, action: Action, todo: deque[Action], done: list[Action], trouble: Trouble
    ) -> None:
        if isinstance(action, actions.SetFar):
            self._set_far(action.path, todo, done, trouble)
        else:
            self._delete(todo, done)

    def _delete(self, todo: deque[Action], done: list[Action]) -> None:
        """As many as follow one another: of one that is gone already only the record goes."""
        steps = _first(todo, actions.Unmake)
        if len(there := [each.interface for each in steps if each.interface.ifindex]) > 1:
            self._changes.delete_together(there)
        for step in steps:
            if step.interface.ifindex:
                self._changes.delete_made(step.interface)
            self._ledger.forget_made(step.made.end)
            done.append(todo.popleft())

    def _write_entries(self, todo: deque[Action], done: list[Action]) -> None:
        """As many as follow one another; between two of them frames may be dropped."""
        plane = self._dataplane
        while todo:
            key = todo[0].interface.ifindex
            match todo[0]:
                case actions.Point(mode=Mode.TC, target=target):
                    plane.steer(key, target)
                case actions.Point(target=target):
                    plane.point(key, target)
                case actions.Cut(mode=Mode.TC):
                    plane.unsteer(key)
                case actions.Cut():
                    plane.unpoint(key)
                case actions.Guard():
                    plane.guard(key)
                case actions.Unguard():
                    plane.unguard(key)
                case _:
                    return
            done.append(todo.popleft())

    def _set_far(
        self, path: str, todo: deque[Action], done: list[Action], trouble: Trouble
    ) -> None:
        """As many as follow one another for one namespace: it is entered once."""
        steps = [each for each in _first(todo, actions.SetFar) if each.path == path]
        far = [FarSetting(each.far_name, each.made.mtu, each.set_up) for each in steps]
        refused = self._changes.set_far(path, far)
        for number, step in enumerate(steps):
            if number not in refused:
                self._ledger.hold_made(step.made)
                done.append(step)
            elif words := refused[number]:
                trouble.far[step.made.end] = FarRefusal(step.made, words)
            todo.popleft()

    def _hold(self, record: Record) -> None:
        """Counted before it is recorded: an end that is recorded is not held anew."""
        self._dataplane.count(record.ifindex)
        try:
            self._ledger.hold(record)
        except (XconnectError, OSError):
            if record.ifindex not in self._ledger.records:
                self._dataplane.uncount(record.ifindex)
            raise

    def _hold_all(self, records: Sequence[Record]) -> dict[int, Exception]:
        """All in one write, or if that fails one by one; what was refused, by its number."""
        try:
            for record in records:
                self._dataplane.count(record.ifindex)
            self._ledger.hold_all(records)
        except (XconnectError, OSError):
            return _refused(self._hold, records)
        return {}

    def _forget(self, ifindex: int) -> None:
        self._dataplane.uncount(ifindex)
        self._ledger.forget(ifindex)

    def _forget_all(self, ifindexes: Sequence[int]) -> dict[int, Exception]:
        """As ``_hold_all``."""
        try:
            for ifindex in ifindexes:
                self._dataplane.uncount(ifindex)
            self._ledger.forget_all(ifindexes)
        except (XconnectError, OSError):
            return _refused(self._forget, ifindexes)
        return {}

    def _add_drop(self, drop: actions.AddDrop) -> None:
        """Recorded before it stands there: nothing else would know that it is ours."""
        fd, program = self._dataplane.filter(drop.expression)
        self._ledger.know_programs(frozenset((program,)))
        self._changes.add_filter(
            drop.interface,
            "egress",
            fd,
            replacing=drop.replacing,
            handle=DROP_HANDLE,
            name=drop.name,
        )

    def _attach(self, end: Interface, mode: Mode, old: int, role: str) -> None:
        """Over an older program of ours without a gap, as long as it can still be named."""
        old_fd = None
        if old:
            with suppress(ProgramGoneError):
                old_fd = self._dataplane.fd_of(old)
                if old_fd is None:
                    self._changes.detach(end, mode, None)
        self._changes.attach(end, mode, self._dataplane.fds[role], old_fd)
        if mode is Mode.NATIVE:
            self._dataplane.listen_to_drivers()


_Kind = TypeVar("_Kind", bound=Action)


def _first(todo: Iterable[Action], kind: type[_Kind] | tuple[type[_Kind], ...]) -> list[_Kind]:
    """Those of one kind, or of these, that it begins with."""
    found = []
    for action in todo:
        if not isinstance(action, kind):
            break
        found.append(action)
    return found


_Each = TypeVar("_Each")


def _refused(do: Callable[[_Each], None], each: Iterable[_Each]) -> dict[int, Exception]:
    """What was refused of these, by its number."""
    refused: dict[int, Exception] = {}
    for number, one in enumerate(each):
        try:
            do(one)
        except (XconnectError, OSError) as error:
            refused[number] = error
    return refused
