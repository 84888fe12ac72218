"""The steps that a plan is made of: plain data, each with its reason. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from xconnectd.model import Filter, Interface, Made, Mode, Record, Setting, Tunnel
from xconnectd.shape import Shape


@dataclass(frozen=True, slots=True)
class Action:
    """One step on one interface. ``link`` is empty for an end that is detached."""

    link: str
    interface: Interface
    reason: str


@dataclass(frozen=True, slots=True)
class Hold(Action):
    """Records the interface, with every setting the plan changes, before any is changed."""

    record: Record


@dataclass(frozen=True, slots=True)
class Forget(Action):
    """Drops the record and the counters of an interface that is as found again."""


@dataclass(frozen=True, slots=True)
class Set(Action):
    """Gives a setting a value: ours, or the found one when it is put back."""

    setting: str
    value: int


@dataclass(frozen=True, slots=True)
class Impair(Action):
    """Shapes what leaves by the interface, by a queueing discipline at its root."""

    shape: Shape


@dataclass(frozen=True, slots=True)
class Point(Action):
    """Writes the DEVMAP entry of an XDP end, or the peers entry that every end has for tc."""

    mode: Mode
    target: int


@dataclass(frozen=True, slots=True)
class Cut(Action):
    """Removes that entry."""

    mode: Mode


@dataclass(frozen=True, slots=True)
class Attach(Action):
    """Puts the XDP program of a ``role`` on, over ``replacing`` (the id of one of ours, 0: none).

    ``is_our_choice``: native mode was not asked for, and where it is refused there is another.
    """

    mode: Mode
    replacing: int
    is_our_choice: bool = False
    role: str = "xdp"


@dataclass(frozen=True, slots=True)
class Detach(Action):
    """Takes an XDP program of ours off."""

    mode: Mode
    program: int


@dataclass(frozen=True, slots=True)
class AddFilter(Action):
    """Puts the current program of a ``role`` on clsact, over another of ours if ``replacing``."""

    direction: str
    replacing: bool
    role: str


@dataclass(frozen=True, slots=True)
class AddDrop(Action):
    """Has frames of the wire that match a libpcap expression dropped as they leave.

    ``name`` tells the filter from one of another expression, which it replaces if ``replacing``.
    """

    expression: str
    name: str
    replacing: bool


@dataclass(frozen=True, slots=True)
class DeleteFilter(Action):
    """Takes a filter of ours off clsact."""

    direction: str
    filter: Filter


@dataclass(frozen=True, slots=True)
class Guard(Action):
    """Has what gets past our programs dropped and counted before the host's IP stack."""


@dataclass(frozen=True, slots=True)
class Unguard(Action):
    """Lets the host's IP stack have it again."""


@dataclass(frozen=True, slots=True)
class Unlearn(Action):
    """Removes the addresses, routes and neighbours that the host has by routers on the wire."""


@dataclass(frozen=True, slots=True)
class HoldMade(Action):
    """Records an interface that is to be made, or what it is like now."""

    made: Made


@dataclass(frozen=True, slots=True)
class Make(Action):
    """Makes an interface, down. ``again``: one that was as it is to be is gone, and not by us."""

    made: Made
    again: bool


@dataclass(frozen=True, slots=True)
class MakeVeth(Make):
    """The far end is in the namespace with the file ``path``."""

    path: str
    far_name: str
    far_mac: str


@dataclass(frozen=True, slots=True)
class MakeTunnel(Make):
    """A VXLAN device."""

    tunnel: Tunnel


@dataclass(frozen=True, slots=True)
class SetFar(Action):
    """Gives the far end of a veth that we made its MTU, and sets it up if ``set_up``.

    From inside the namespace with the file ``path``. ``made`` is how it is recorded then. What is
    refused of it is a warning of its link, no failure: the node can do it too.
    """

    made: Made
    path: str
    far_name: str
    set_up: bool


@dataclass(frozen=True, slots=True)
class Unmake(Action):
    """Deletes an interface that we made, if it is still there, and its record."""

    made: Made


OVER_NETLINK: Final = (Set, Impair, Attach, Detach, AddFilter, AddDrop, DeleteFilter, Unlearn)
"""What changes an interface, and is told to everybody; the others write maps and records."""


OF_WHAT_IS_MADE: Final = (HoldMade, Make, SetFar, Unmake)
"""What changes which ends elsewhere there are, or what is known of them."""


def is_of_admin_state(action: Action) -> bool:
    """Whether it sets an end up or down, or the carrier of a tap."""
    return isinstance(action, Set) and action.setting in (Setting.UP, Setting.CARRIER)


def is_mere_setting(action: Action) -> bool:
    """Whether frames are forwarded without it: not so clsact, which carries our filters."""
    if isinstance(action, Set):
        return action.setting != Setting.CLSACT and not is_of_admin_state(action)
    return isinstance(action, Hold | Impair | Unlearn)


def is_record(action: Action) -> bool:
    """Whether it changes nothing but what is on the disk."""
    return isinstance(action, Hold | HoldMade)


def in_words(actions: Iterable[Action]) -> str:
    """``attach generic va, point generic va``: what is done, without the records of it."""
    steps = as_json(action for action in actions if not is_record(action))
    return ", ".join(dict.fromkeys(f"{each['action']} {each['interface']}" for each in steps))


def as_json(actions: Iterable[Action]) -> list[dict[str, str]]:
    return [
        {
            "action": _verb(action),
            "link": action.link,
            "interface": action.interface.name,
            "reason": action.reason,
        }
        for action in actions
    ]


def _verb(action: Action) -> str:
    match action:
        case Set(setting=setting, value=value):
            return f"set {setting} {value}"
        case Attach(mode=mode) | Detach(mode=mode) | Point(mode=mode) | Cut(mode=mode):
            return f"{type(action).__name__.lower()} {mode}"
        case AddFilter(direction=direction):
            return f"add filter {direction}"
        case AddDrop():
            return "drop egress"
        case DeleteFilter(direction=direction):
            return f"delete filter {direction}"
        case HoldMade():
            return "hold"
        case Make(made=made):
            return f"make {made.kind}"
        case Unmake(made=made):
            return f"delete {made.kind}"
        case SetFar(set_up=set_up):
            return "set far end up" if set_up else "set far end's mtu"
    return type(action).__name__.lower()
