"""Commands that put things right, as people are shown them. Pure."""

from __future__ import annotations

from shlex import quote


def repair(pid: int | None, config: str, *, systemd: bool) -> str:
    """The command that has what is ours put right, by the daemon ``pid`` or by a new one."""
    if systemd:
        return f"systemctl {'start' if pid is None else 'restart'} xconnectd"
    start = f"xconnectd run -c {quote(config)}"
    if pid == 0:
        return f"{start}  # where the daemon runs, once that has ended"
    return start if pid is None else f"kill {pid}; {start}"
