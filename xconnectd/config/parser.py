"""The file: YAML text to ``Wiring``, or every problem in it with its line and column.

Owns what a good wiring is: which ends and options go together, and what no two links share. What
each key may hold is said in ``keys``. Never touches the disk.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from xconnectd import spelling
from xconnectd.config import ends, hosts, impairments, keys
from xconnectd.config.impairments import Fault, no_fault
from xconnectd.config.yaml_tree import (
    MappingNode,
    Refusal,
    Report,
    ScalarNode,
    YamlNode,
    bounded,
    compose,
    is_null,
    place_of,
    said,
    short,
)
from xconnectd.impairment import Impairments
from xconnectd.model import (
    Carrier,
    Endpoint,
    Link,
    Listen,
    Mode,
    Node,
    Place,
    Tunnel,
    Wiring,
)
from xconnectd.monitor_address import MonitorAddress

_SOME: Final = 8
"""Names that a message lists."""
_MANY_NAMES: Final = 1000
"""Among more of them a misspelt one is not looked for."""
_CONTAINERLAB: Final = "`xconnectd import` makes a wiring of a containerlab topology"


def parse(text: str | bytes, path: str, fault: Fault = no_fault) -> Wiring:
    """Turn the text of a file into its wiring, or raise ``ConfigError`` with all its problems.

    ``fault`` says what is wrong with a filter, which a library of the machine knows.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    report = Report(path)
    reader = _Reader(report, fault)
    with report.gathering():
        reader.read(compose(data, report))
    report.require_none()
    return Wiring(
        tuple(reader.links),
        tuple(report.warnings),
        reader.metrics,
        data,
        tuple(reader.hosts.items()),
        reader.hosts_key,
        hosts_place=reader.hosts_place,
    )


class _Reader:
    """Reads one file's nodes; what is bad is reported and left out, so that all of it is found."""

    def __init__(self, report: Report, fault: Fault) -> None:
        self.links: list[Link] = []
        self.metrics: Listen | None = None
        self.hosts: dict[str, str] = {}
        self.hosts_key = ""
        self.hosts_place: Place | None = None
        self._report = report
        self._fault = fault
        self._defaults: dict[str, Any] = {}
        self._of_made: dict[str, Any] = {}
        """Those of links with an end in a node; other links do not change with them."""
        self._of_crossing: dict[str, Any] = {}
        """Those of links between two hosts, likewise."""
        self._taken: dict[str, Link] = {}
        self._taken_on_hosts: dict[str, Link] = {}
        """By what the end is called there."""
        self._vnis: dict[hosts.Taken, Link] = {}
        self._known_monitors: dict[tuple[str, MonitorAddress], Endpoint] = {}
        self._nodes: dict[str, Node] = {}
        self._named: set[str] = set()
        self._named_hosts: Collection[str] | None = ()
        """None where nobody can say which they are."""
        self._refused: set[tuple[int, int]] = set()

    def read(self, root: YamlNode | None) -> None:
        entries = self._top(root)
        top = self._values(keys.TOP, entries)
        if defaults := top.get("defaults"):
            self._defaults = self._values(keys.DEFAULTS, defaults.entries)
            if "mtu" in self._defaults:
                self._of_made = {"mtu": self._defaults.pop("mtu")}
            if "hold" in self._defaults:
                self._of_crossing = {"hold": self._defaults.pop("hold")}
        if metrics := top.get("metrics"):
            self.metrics = self._values(keys.METRICS, metrics.entries).get("listen")
        if nodes := top.get("nodes"):
            self._nodes = {key.value: self._node(key, it) for key, it in nodes.entries.values()}
        self._read_hosts(top, entries)
        if links := top.get("links"):
            if len(links.entries) > keys.MAX_LINKS:
                text = f"there are {len(links.entries):,} links, {keys.MAX_LINKS:,} fit"
                raise Refusal(links, text, "that is the room in the kernel's maps")
            for key, value in links.entries.values():
                self._link(key, value)
        if nodes:
            self._warn_of_unnamed(nodes)

    def _top(self, root: YamlNode | None) -> keys.Entries:
        if root is None or is_null(root):
            raise Refusal(root, "the file is empty", keys.DISCONNECT)
        if not isinstance(root, MappingNode):
            raise Refusal(root, f"the file is a mapping, not {said(root)}", "`links: {}`")
        if "links" not in root.entries:
            hint = _CONTAINERLAB if "topology" in root.entries else keys.DISCONNECT
            self._report.problem(root, "there is no `links:`", hint)
        return {key: it for key, it in root.entries.items() if not key.startswith(keys.USER_PREFIX)}

    def _values(self, level: keys.Level, entries: keys.Entries) -> dict[str, Any]:
        """What the keys of a level say, without those that only had to be right."""
        read = ((key, self._try(level.read, at, node)) for key, (at, node) in entries.items())
        return {key: value for key, value in read if value is not None}

    def _try(self, read: keys.Read, key: ScalarNode, node: YamlNode) -> Any:
        """What ``read`` makes of a value, None if that is refused.

        Behind an alias it is the same key and value again and again; once is enough to refuse it.
        """
        if (id(key), id(node)) in self._refused:
            return None
        try:
            return read(key, bounded(node))
        except Refusal as refusal:
            self._refused.add((id(key), id(node)))
            self._report.add(refusal)
            return None

    def _node(self, key: ScalarNode, value: YamlNode) -> Node:
        entry = self._try(keys.to_node, key, value)
        if not entry:
            return Node(key.value)
        given = [each for each in keys.NODE_KEYS if each in entry.entries]
        if not entry.entries:
            text = f"`{short(key.value)}` says nothing of where it is"
            self._report.problem(entry, text, keys.NODE_EXAMPLES)
        elif len(given) > 1:
            text = f"`{short(key.value)}` is in two places, by {' and '.join(given)}"
            self._report.problem(entry.entries[given[1]][0], text, "keep one of them")
        return Node(key.value, **self._values(keys.NODE, entry.entries))

    def _placed(self, end: Endpoint) -> Endpoint:
        """With what ``nodes`` says of its node."""
        if end.node is None:
            return end
        self._named.add(end.node.name)
        return end._replace(node=self._nodes.get(end.node.name, end.node))

    def _warn_of_unnamed(self, nodes: MappingNode) -> None:
        """Of entries that no link needs."""
        unnamed = self._nodes.keys() - self._named
        strange = self._named - self._nodes.keys()
        near = spelling.meant(unnamed, strange if len(strange) <= _MANY_NAMES else ())
        for name in filter(unnamed.__contains__, self._nodes):
            text = f"no link has an end in the node `{short(name)}`"
            hint = f" (did you mean `{short(near[name])}`?)" if name in near else ""
            self._report.warn(place_of(nodes.entries[name][0]), f"{text}{hint}")

    def _read_hosts(self, top: Mapping[str, Any], entries: keys.Entries) -> None:
        self.hosts_key = top.get("hosts_key", "")
        if "hosts" not in entries:
            if "hosts_key" in entries:
                text = "`hosts_key` is of what daemons of several hosts say to each other"
                self._report.problem(entries["hosts_key"][0], text, "there is no `hosts:`")
            return
        self.hosts_place = place_of(entries["hosts"][0])
        named: Mapping[str, Any] | None = top["hosts"].entries if "hosts" in top else None
        self._named_hosts = named
        owners: dict[str, str] = {}
        for key, value in (named or {}).values():
            if not (found := self._try(keys.host, key, value)):
                continue
            name, address = found
            if (twin := owners.setdefault(address, name)) != name:
                text = f"`{short(address)}` is the address of `{short(twin)}` already"
                self._report.problem(value, text, "every host has one of its own")
            self.hosts[name] = address

    def _link(self, key: ScalarNode, value: YamlNode) -> None:
        a = self._try(ends.read, key, key)
        mode_place = key
        if isinstance(value, MappingNode):
            mode_place, _ = value.entries.get("mode", (key, None))
            b, options = self._long_form(a, value)
            _, value = value.entries.get("to") or self._lacks_other_end(key)
        else:
            options, b = {}, self._try(ends.read, key, value)
        if not (a and b):
            return
        impair = options.pop("impair", None)
        if a.node or b.node:
            a, b = self._placed(a), self._placed(b)
            options = {**self._of_made, **options}
        if a.host or b.host:
            self._check_hosts({a: key, b: value})
        if hosts.crosses(a, b):
            options = {"vni": hosts.vni_of(a, b), **self._of_crossing, **options}
        link = Link(a, b, place=place_of(key), **{**self._defaults, **options})
        if (link.vni or b.tunnel) and link.mode in (Mode.GENERIC, Mode.NATIVE):
            text = f"mode {link.mode} loses VLAN tags and large frames in a tunnel"
            self._report.problem(mode_place, text, "`mode: tc`, or `auto`, which is tc there")
        if impair:
            link = replace(link, impair=self._impair(impair, link))
        self._join(link, key, value)

    def _long_form(
        self, a: Endpoint | None, value: MappingNode
    ) -> tuple[Endpoint | None, dict[str, Any]]:
        """The other end of a link, and its options."""
        options = self._values(keys.LINK, value.entries)
        b = options.pop("to", None)
        if isinstance(b, MappingNode):
            b = self._tunnel_end(b)
        if a and b:
            self._check_fitting(a, b, options, value)
        if labels := options.get("labels"):
            options["labels"] = self._labels(labels)
        options["carrier_of_nics"] = options.get("carrier") is Carrier.FOLLOW
        if by_end := options.pop("ends", None):
            options["monitors"] = self._monitors(by_end, {a, b})
        return b, options

    def _check_fitting(
        self, a: Endpoint, b: Endpoint, options: dict[str, Any], value: MappingNode
    ) -> None:
        """Refuses options that mean nothing for a link with these ends."""
        pair = f"`{short(a.name)}: {short(b.name)}`"
        strange = {}
        if not (a.node or b.node):
            strange["mtu"] = f"`mtu` is of interfaces made in nodes; {pair} has no end in one"
        if not hosts.crosses(a, b):
            strange["vni"] = f"`vni` is of the tunnel between two hosts; {pair} needs none"
            strange["hold"] = f"`hold` is of links between two hosts; {pair} is none"
        if a == b and options.get("one_way"):
            strange["one_way"] = "`one_way` needs two ends, and this link is a loopback"
        for name in strange.keys() & options.keys():
            del options[name]
            self._report.problem(value.entries[name][0], strange[name], "leave it out")

    def _tunnel_end(self, to: MappingNode) -> Endpoint | None:
        tunnel = self._values(keys.TO, to.entries).get("vxlan")
        if not to.entries:
            self._report.problem(to, "`to` says nothing of the other end", keys.TUNNEL_EXAMPLE)
        values = self._values(keys.TUNNEL, tunnel.entries) if tunnel else {}
        whole = {"remote", "vni"} <= values.keys()
        return ends.of_tunnel(Tunnel(**values)) if whole else None

    def _check_hosts(self, found: Mapping[Endpoint, YamlNode]) -> None:
        """Whether the hosts of these ends, one at least, are known and can have a link."""
        known = self._named_hosts
        for end, node in found.items():
            if end.host and known is not None and end.host not in known:
                text = f"`{short(end.name)}` is on a host that `hosts` does not have"
                near = keys.resembles(end.host, known) if len(known) <= _MANY_NAMES else ""
                hint = near or f"known: {', '.join([*known][:_SOME])}"
                if not known:
                    text = f"`{short(end.name)}` is on a host, and there is no `hosts:`"
                    hint = f"{keys.HOSTS_EXAMPLE}; an interface alone has no slash in its name"
                self._report.problem(node, text, hint)
            elif not (end.host or end.tunnel):
                other = next(each for each in found if each.host)
                text = f"`{short(end.name)}` has no host, and `{short(other.name)}` is on one"
                hint = f"`{other.host}/{short(end.name)}`, or whichever host it is on"
                self._report.problem(node, text, hint)
        places = {end.host: self.hosts[end.host] for end in found if end.host in self.hosts}
        if len({":" in address for address in places.values()}) > 1:
            kinds = (f"`{name}` has {address}" for name, address in places.items())
            text = f"{' and '.join(kinds)}: a VXLAN device speaks one of IPv4 and IPv6, so no frame"
            text += " crosses; give both hosts addresses of one kind"
            self._report.warn(place_of([*found.values()][-1]), text)

    def _impair(self, node: MappingNode, link: Link) -> Impairments | None:
        found = impairments.read(node, self._report, self._fault)
        if not any(found):
            return None
        if link.mode in (Mode.GENERIC, Mode.NATIVE):
            text = f"`impair` needs mode tc: in mode {link.mode} frames go past every queue"
            self._report.problem(node, text, "leave `mode` out, or `mode: tc`")
        if link.a == link.b and found.forward != found.reverse:
            text = "frames cross a loopback one way"
            self._report.problem(node, text, "without `forward` and `reverse`")
        return found

    def _labels(self, labels: MappingNode) -> tuple[tuple[str, str], ...]:
        read = (self._try(keys.label, key, node) for key, node in labels.entries.values())
        return tuple(label for label in read if label is not None)

    def _monitors(
        self, options: MappingNode, known: set[Endpoint | None]
    ) -> tuple[tuple[str, MonitorAddress], ...]:
        found = []
        for key, node in options.entries.values():
            end = self._try(ends.read, key, key)
            of_end = self._try(keys.to_mapping, key, node)
            if end and None not in known and end not in known:
                names = " and ".join(sorted({each.name for each in known if each}))
                text = f"`{short(end.name)}` is no end of this link"
                self._report.problem(key, text, f"its ends are {names}")
            address = of_end and self._values(keys.ENDS, of_end.entries).get("monitor")
            if end and address:
                first = self._known_monitors.setdefault((end.host, address), end)
                if first != end:
                    text = f"{address} is the monitor of `{first}` already"
                    self._report.problem(node, text, "a netdev is behind one interface")
            if end and end.node and address:
                text = f"`{short(end.name)}` is in a node; a monitor is of the machine behind a tap"
                self._report.problem(node, text, "leave it out")
            if end and address:
                found.append((end.name, address))
        return tuple(found)

    def _lacks_other_end(self, key: ScalarNode) -> tuple[ScalarNode, YamlNode]:
        text = f"the link of `{short(key.value)}` lacks `to`, its other end"
        self._report.problem(key, text, "`to: tap0`")
        return key, key

    def _join(self, link: Link, key: ScalarNode, other: YamlNode) -> None:
        """Add a link, unless an end of it is in another one or it is one that we know."""
        taken, a, b = self._taken, link.a.name, link.b.name
        if a in taken or b in taken:
            self._clash(link, {b: other, a: key})
        else:
            self.links.append(link)
            if link.vni or link.b.tunnel:
                self._check_vni(link, key)
        taken.setdefault(a, link)
        taken.setdefault(b, link)
        if link.a.host or link.b.host or self._taken_on_hosts:
            self._check_everywhere({link.b: other, link.a: key}, link)

    def _clash(self, link: Link, ends: Mapping[str, YamlNode]) -> None:
        clashes = {name: self._taken[name] for name in ends if name in self._taken}
        first = next(iter(clashes.values()))
        if first.id == link.id:
            self._reversed(link, first, ends[link.a.name])
        else:
            for name, other in clashes.items():
                self._taken_twice(name, ends[name], other)

    def _check_vni(self, link: Link, key: ScalarNode) -> None:
        """Two tunnels of one host would be one."""
        if other := next(filter(None, map(self._vnis.get, hosts.meets(link))), None):
            text = f"the tunnel of {_pair(link)} has the VNI {hosts.vni(link)}, as that of"
            hint = "give one of them another: `vni: N` in the long form"
            self._report.problem(key, f"{text} {_pair(other)} of {_line(other)}", hint)
        for each in hosts.takes(link):
            self._vnis.setdefault(each, link)

    def _check_everywhere(self, found: Mapping[Endpoint, YamlNode], link: Link) -> None:
        """An end without a host is one of every host."""
        for end, node in found.items():
            name = ends.bare(end)
            other = (self._taken if end.host else self._taken_on_hosts).get(name)
            if other and other is not link:
                text = f"`{short(name)}` is in the link {_pair(other)} of {_line(other)} already"
                hint = f"an end without a host is on every host: `HOST/{short(name)}` is on one"
                self._report.problem(node, text, hint)
            if end.host:
                self._taken_on_hosts.setdefault(name, link)

    def _reversed(self, link: Link, first: Link, key: YamlNode) -> None:
        same = f"{_pair(link)} is the link {_pair(first)} of {_line(first)}"
        impair = link.impair and link.impair.turned
        same_options = replace(link, a=first.a, b=first.b, impair=impair) == first
        if same_options and not link.one_way:
            self._report.warn(place_of(key), f"{same}, one of the two is enough")
        else:
            self._report.problem(key, f"{same} with other options", "keep one of the two")

    def _taken_twice(self, name: str, node: YamlNode, other: Link) -> None:
        text = f"`{short(name)}` is in the link {_pair(other)} of {_line(other)} already"
        self._report.problem(node, text, "an interface belongs to one link")


def _pair(link: Link) -> str:
    return f"`{short(link.a.name)}: {short(link.b.name)}`"


def _line(link: Link) -> str:
    return f"line {link.place.line}" if link.place else "another line"
