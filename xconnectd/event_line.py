"""An event as a line for people: when, what, which link and why; then what else fits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from xconnectd.formatting import printable

_WIDTH: Final = 100
"""Characters. A link and its reason are told in full; only what comes after them is left out."""
_NAME: Final = len("link.disconnected")
_SUBJECTS: Final = ("link", "interface", "path")
_LAST: Final = ("a", "b", "a_ifindex", "b_ifindex", "config_hash")
"""Fields that say little beside the link."""
_COLOURS: Final = {"warning": "yellow", "error": "red", "critical": "red"}


def event_line(event: Mapping[str, Any], paint: Callable[[str, str], str]) -> str:
    """``20:53:07 link.failed       vc:vd  vd runs an XDP program …  mode=generic``, local time.

    ``paint`` puts a text into a colour.
    """
    fields = dict(event)
    exception = fields.pop("exception", "")
    at = datetime.fromisoformat(fields.pop("timestamp")).astimezone()
    level, name = fields.pop("level", "info"), str(fields.pop("event"))
    subject = next((fields.pop(key) for key in _SUBJECTS if key in fields), "")
    if interface := fields.pop("interface", ""):
        subject = f"{subject} at {interface}"
    subject, *further = fields.pop("problems", None) or [subject]  # each begins with its place
    told = "  ".join(printable(str(it)) for it in (subject, fields.pop("reason", "")) if it)
    head, name = f"{at:%H:%M:%S} ", f"{printable(name):{_NAME}}"
    room = _WIDTH - len(f"{head}{name} {told}")
    for key in sorted(fields, key=_LAST.__contains__):
        more = f"  {key}={printable(str(fields[key]))}"
        if len(more) <= room:
            told, room = told + more, room - len(more)
    line = f"{head}{paint(name, _COLOURS.get(level, 'green'))} {told.lstrip()}"
    below = [*(" " * len(head) + printable(str(each)) for each in further), exception]
    return "\n".join([line, *filter(None, below)])
