"""What container engines say of their containers, from bytes to facts. Pure.

Docker's Engine API (docs.docker.com/reference/api/engine), which Podman speaks too. An answer is
untrusted: what is not as it should be raises ``GarbledError``, what is not needed is not looked at.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from xconnectd.errors import XconnectError

_ID: Final = re.compile(r"[0-9a-f]{12,128}")
_LONGEST_PATH: Final = 4096
_LARGEST_PID: Final = 1 << 22
"""PID_MAX_LIMIT of the kernel."""
_RUNS: Final = ("running", "paused")
ENDS: Final = ("die", "cleanup", "destroy", "remove")
"""Docker's and Podman's words in events."""


class GarbledError(XconnectError):
    """An answer that cannot be understood."""


class Container(NamedTuple):
    """One that runs, or is paused.

    ``sandbox`` is the file of its network namespace. It is empty if the engine made none: for
    Podman's ``--network none`` and for the namespace of another container, in both. ``pid`` is its
    first process, as the engine counts them, and ``start`` when that was started, known to whoever
    counts them alike.
    """

    id: str
    name: str
    sandbox: str
    pid: int
    start: int | None = None


class Change(NamedTuple):
    """Something happened to the container with this id, called so by now: it ``ends``, or not."""

    id: str
    name: str
    ends: bool = False


def running(answer: bytes) -> dict[str, str]:
    """Of ``/containers/json?all=true``: the ids of those that run or are paused, by name.

    Without ``all`` Podman does not name those that are paused. A name with another slash is a
    link's of Docker, and one that is being removed has none.
    """
    found: dict[str, str] = {}
    for each in _of(_json(answer), list):
        container = _of(each, dict)
        if container.get("State") in _RUNS:
            for name in _of(container.get("Names") or [], list):
                found[_of(name, str).removeprefix("/")] = _id(container.get("Id"))
    return found


def inspected(answer: bytes) -> Container | None:
    """Of ``/containers/ID/json``; None if it does not run."""
    container = _of(_json(answer), dict)
    state = _of(container.get("State"), dict)
    pid = _of(state.get("Pid"), int)
    if state.get("Running") is not True or not 0 < pid <= _LARGEST_PID:
        return None
    name = _of(container.get("Name"), str).removeprefix("/")
    sandbox = _of(_of(container.get("NetworkSettings"), dict).get("SandboxKey") or "", str)
    if sandbox and not _is_path(sandbox):
        raise GarbledError("SandboxKey is no path")
    return Container(_id(container.get("Id")), name, sandbox, pid)


def change(line: bytes) -> Change | None:
    """Of a line of ``/events``; None of an empty one."""
    if not line.strip():
        return None
    event = _of(_json(line), dict)
    actor = _of(event.get("Actor"), dict)
    attributes = _of(actor.get("Attributes") or {}, dict)
    name = _of(attributes.get("name", ""), str)
    return Change(_id(actor.get("ID")), name, event.get("Action") in ENDS)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GarbledError("that is no JSON") from error


def _of(value: Any, kind: type[Any]) -> Any:
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise GarbledError(f"{kind.__name__} expected")


def _id(value: Any) -> str:
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise GarbledError("that is no container's id")


def _is_path(text: str) -> bool:
    return text.startswith("/") and len(text) < _LONGEST_PATH and text.isprintable()
