"""What container engines call the containers of processes, for who shows a namespace.

For commands: each engine is asked once, and waited for but a moment.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from xconnectd.lazy_imports import late
from xconnectd.nodes import containers
from xconnectd.nodes.engine import Address, addresses

_TIMEOUT: Final = 1.0
"""Seconds for an engine."""
_ID: Final = re.compile(r"[0-9a-f]{64}")


def of_processes(pids: Iterable[int]) -> dict[int, str]:
    """By their numbers the names of the containers that these are in, as far as engines tell.

    No engine is asked if none of them is in a container.
    """
    identities = {}
    for pid in pids:
        with suppress(OSError):
            identities[pid] = container_in(Path(f"/proc/{pid}/cgroup").read_text())
    names = names_by_id(addresses()) if any(identities.values()) else {}
    return {pid: names[found] for pid, found in identities.items() if found in names}


def container_in(cgroup: str) -> str:
    """The id of a container from /proc/PID/cgroup; empty where a process is in none.

    Docker and Podman put it into the name of a group of each, whoever made that (systemd or they).
    """
    return next(reversed(_ID.findall(cgroup)), "")


def names_by_id(engines: Sequence[Address]) -> dict[str, str]:
    """Of all containers that run. What an engine does not say in time is not there.

    Nor is it an error: a namespace without a name has a number.
    """
    with late("ssl"):  # http.client would import it
        from xconnectd.nodes.engine_http import Connection

    found: dict[str, str] = {}

    def ask(engine: Address) -> None:
        with suppress(Exception), Connection(engine.socket) as connection:
            answer = connection.answer("/containers/json?all=true") or b""
            found.update({identity: name for name, identity in containers.running(answer).items()})

    asked = [each for each in engines if not each.refusal]
    threads = [threading.Thread(target=ask, args=(each,), daemon=True) for each in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_TIMEOUT)
    return {**found}
