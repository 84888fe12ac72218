"""Hosts with an underlay between them: a ``Lab`` and a daemon each, and one file for all.

The underlay is a router, in a namespace of its own, with a subnet for each host. It fragments, it
counts hops, and loses what it is told to lose, in one direction or both.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from .lab import Lab, Station, inside, poll, run
from .service import Daemon
from .traffic import Closing

_FORWARDING: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
_KEPT_ADDRESSES: Final = ("ipv6/conf/all/keep_addr_on_down", "ipv6/conf/default/keep_addr_on_down")


class Host:
    """One of them; ``name`` is the file's and that of the router's interface to it."""

    def __init__(self, number: int, lab: Lab, underlay: str, mtu: int, v6: bool) -> None:
        self.name = f"h{number}"
        self.lab = lab
        self.address = f"fd00:{number}::2" if v6 else f"203.0.113.{4 * number + 2}"
        self.daemon = Daemon(lab, None, "--host", self.name)
        _set(lab.host, _KEPT_ADDRESSES)
        router = f"fd00:{number}::1" if v6 else f"203.0.113.{4 * number + 1}"
        length = 64 if v6 else 30
        peer = f"peer name under0 mtu {mtu} netns {lab.host}"
        more = "nodad" if v6 else ""
        _batch(
            underlay,
            f"link add {self.name} mtu {mtu} up type veth {peer}",
            f"address add {router}/{length} dev {self.name} {more}",
        )
        lab.batch(
            (
                "link set under0 up",
                f"address add {self.address}/{length} dev under0 {more}",
                f"route add default via {router}",
            )
        )

    def veth(self, end: str, number: int | None = None, **more: Any) -> Station:
        return self.lab.veth(end, number, **more)


class Hosts(Closing):
    """``h1``, ``h2`` … by their names. Use it as a context manager."""

    def __init__(self, count: int = 3, *, mtu: int = 1500, v6: bool = False) -> None:
        self._v6 = v6
        self._labs = contextlib.ExitStack()
        self._lost: set[tuple[str, str]] = set()
        try:
            first, *others = (self._labs.enter_context(Lab()) for _ in range(count))
            self.underlay = first.namespace("underlay")
            _set(self.underlay, (*_FORWARDING, *_KEPT_ADDRESSES))
            found = [Host(n, x, self.underlay, mtu, v6) for n, x in enumerate((first, *others), 1)]
        except BaseException:
            self._labs.close()
            raise
        self._hosts = {host.name: host for host in found}
        for host in found:
            host.lab.hush()
        for host in found[1:]:
            poll(lambda host=host: self._reaches(found[0], host), what="the underlay")  # type: ignore[misc]

    def close(self) -> None:
        self._labs.close()

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    # ------------------------------------------------------------------ the file and its daemons

    def document(self, links: Mapping[str, Any], **more: Any) -> str:
        """The file that is given to every host."""
        hosts = {host.name: host.address for host in self._hosts.values()}
        return json.dumps({"hosts": hosts, **more, "links": links})

    def write(self, text: str, *to: str) -> None:
        """To all, if none is named."""
        for name in to or self._hosts:
            self[name].daemon.write(text)

    def start(self, links: Mapping[str, Any], **more: Any) -> None:
        """Every daemon, and wait for the first pass of each."""
        self.write(self.document(links, **more))
        for host in self._hosts.values():
            host.daemon.spawn()
        for host in self._hosts.values():
            host.daemon.wait_event("daemon.ready")

    def wait_state(self, a: str, b: str, state: str, *at: str, **fields: Any) -> None:
        """Until the link of two ends has it on their hosts, or on those that are named.

        ``fields`` are others of the link in status, as ``reason``: a text that is in it.
        """
        for name in at or sorted({a.partition("/")[0], b.partition("/")[0]}):
            daemon = self[name].daemon

            def has(daemon: Daemon = daemon) -> bool:
                link = daemon.link(a, b)
                said = all(part in (link.get(key) or "") for key, part in fields.items())
                return link["state"] == state and said

            try:
                poll(has, what=f"{a}, {b} is {state} {fields} on {name}")
            except AssertionError as error:
                raise AssertionError(f"{error}\n{daemon.link(a, b)}\n{daemon.text()}") from None

    # ------------------------------------------------------------------ the underlay

    def lose(self, source: str, target: str) -> None:
        """Whatever one host sends to the other."""
        if (source, target) not in self._lost:
            self._lost.add((source, target))
            self._rule("add", source, target)

    def partition(self, one: str, other: str) -> None:
        """Neither hears the other."""
        self.lose(one, other)
        self.lose(other, one)

    def mend(self, *ways: tuple[str, str]) -> None:
        """These ways, or all that lose."""
        for way in ways or tuple(self._lost):
            if way in self._lost:
                self._lost.remove(way)
                self._rule("delete", *way)

    @property
    def lost(self) -> frozenset[tuple[str, str]]:
        """The ways on which nothing arrives."""
        return frozenset(self._lost)

    def set_cable(self, name: str, state: str) -> None:
        """Of a host to the router: ``up`` or ``down``."""
        run("ip", "link", "set", name, state, namespace=self.underlay)

    def _rule(self, do: str, source: str, target: str) -> None:
        family = ("-6",) if self._v6 else ()
        what = f"rule {do} pref 100 iif {source} to {self[target].address} blackhole"
        run("ip", *family, *what.split(), namespace=self.underlay)

    @staticmethod
    def _reaches(one: Host, other: Host) -> bool:
        ping = ("ping", "-c", "1", "-W", "1", other.address)
        return one.lab.run(*ping, check=False).returncode == 0


def stitch(host: Host, end: str, remote: str, vni: int, port: int = 14789) -> None:
    """What others do by hand: a VXLAN device, and ``tc mirred`` between it and an end."""
    name = f"by-hand{vni}"
    tunnel = f"id {vni} remote {remote} dstport {port} nolearning"
    host.lab.ip(f"link add {name} mtu 65485 up type vxlan {tunnel}")
    host.lab.mirred(end, name)


def many(host: Host, end: str, count: int) -> list[Station]:
    """Containers ``end``0, ``end``1 … that share a namespace."""
    inner = host.lab.namespace("many", quiet=True)
    numbers = range(count)
    host.lab.batch(f"link add {end}{n} up type veth peer eth{n} netns {inner}" for n in numbers)
    _batch(inner, *(f"link set eth{n} up" for n in numbers))
    return [Station(inner, f"{end}{n}", interface=f"eth{n}") for n in numbers]


def _batch(namespace: str, *lines: str) -> None:
    run("ip", "-batch", "-", namespace=namespace, text="\n".join(lines) + "\n")


def _set(namespace: str, names: Iterable[str]) -> None:
    """These of the kernel's settings to 1."""

    def write() -> None:
        for name in names:
            Path("/proc/sys/net", name).write_text("1")

    inside(namespace, write)
