"""The file, or the directory of files, that a daemon was given: every one with its last good links.

Each file stands for itself: nothing is merged, a refused one keeps the links it had, and an end
that two files claim belongs to the one that had it first, which the kernel shows after a start.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from xconnectd import pcap_filter
from xconnectd.config import ends, hosts, parser, reader, signature
from xconnectd.config.identity import Identity, UnknownHostError
from xconnectd.config.reader import ConfigMissing
from xconnectd.errors import ConfigError, Problem
from xconnectd.formatting import printable
from xconnectd.model import Link, Node, Place, Wiring
from xconnectd.mounts import Disk, UnreachableError

_ONE_OF_ONE: Final = "an interface belongs to one link of one file"
_ONE_MEANING: Final = "give it the same entry in `nodes` of both files, or another name in one"
_ONE_HOST: Final = "hosts are the same in every file"

_Answer = TypeVar("_Answer")


class UnreachableFile(ConfigError):  # noqa: N818 - a kind of ConfigError, as its name says
    """A file may be there, but who keeps it does not answer."""


class UnknownHostFile(ConfigError):  # noqa: N818 - a kind of ConfigError, as its name says
    """A file is good, but nobody can say which of its hosts this is."""


class FileState(NamedTuple):
    """One file: ``loaded``, ``rejected`` (its last good links stay) or ``missing``.

    ``wiring`` is what it asks for, unless that was not to be understood.
    ``unreachable``: it is rejected since who keeps it does not answer. ``host_unknown``: since
    nobody can say which of its hosts this is, which the next address of this machine may tell.
    """

    path: Path
    state: str
    wiring: Wiring = Wiring()
    problems: tuple[Problem, ...] = ()
    unreachable: bool = False
    host_unknown: bool = False

    @property
    def hash(self) -> str:
        """Of its text."""
        return self.wiring.hash

    def as_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "state": self.state,
            "hash": self.hash,
            "problems": [str(problem) for problem in self.problems],
        }


class Reading(NamedTuple):
    """All files at one moment, and the wiring they make together."""

    wiring: Wiring
    files: tuple[FileState, ...]

    @property
    def state(self) -> str:
        """The worst of all files: a user should look where one is not loaded."""
        states = {file.state for file in self.files}
        return next((state for state in ("rejected", "missing") if state in states), "loaded")

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(problem for file in self.files for problem in file.problems)


def read_once(path: Path) -> reader.Content:
    """A file's bytes, for who has no other; a server that does not answer is its problem."""
    disk = Disk()
    try:
        return disk.ask(reader.read, str(path.absolute()))
    except UnreachableError as error:
        return reader.Content(problem=_unreachable(path, error, "is its server dead?"))
    finally:
        disk.close()


def is_directory(path: Path) -> bool:
    """Raises OSError if that cannot be told."""
    disk = Disk()
    try:
        return disk.ask(signature.names, str(path.absolute())) is not None
    finally:
        disk.close()


def _unreachable(path: Path, error: UnreachableError, hint: str) -> Problem:
    return Problem.of_file(path, f"cannot be read: {error.strerror}", hint)


class Files:
    """What ``-c`` names. A directory stands for every ``*.yaml`` in it.

    Of a file for several hosts, the links are those of the one that ``identity`` says this is.
    Without it they are those of all, as ``judge`` has them.
    """

    def __init__(
        self, path: Path, disk: Disk | None = None, *, identity: Identity | None = None
    ) -> None:
        self.path = path
        self._disk = disk or Disk()
        self._identity = identity
        self._host = ""
        self._parts: dict[Path, hosts.Part] = {}
        self._good: dict[Path, Wiring] = {}
        self._found: tuple[Link, ...] = ()

    def close(self) -> None:
        """Leaves behind whatever look is under way."""
        self._disk.close()

    def keep(self, links: Iterable[Link]) -> None:
        """Wires found in the kernel at the start, to be told before a read of all files.

        They say which of two files had an end, and stay until every file is good.
        """
        self._good.clear()
        self._found = tuple(links)

    def read(self) -> Reading:
        """Reads everything anew. What is refused is told, never raised."""
        try:
            states = self._read_paths()
        except OSError as error:
            states = [self._unreadable(error)]
        if all(state.state == "loaded" for state in states):
            self._found = ()
        return Reading(self._together(), tuple(states))

    def judge(self) -> Reading:
        """Reads for who has no past, as ``check``: nobody had an end first that two files claim.

        So both are told of it; the daemon blames the one that came later.
        """
        try:
            read = {path: self._read(path) for path in self._paths()}
        except OSError as error:
            return Reading(Wiring(), (self._unreadable(error),))
        owners = _Owners()
        for path, found in read.items():
            if isinstance(found, Wiring):
                owners.add(path, found)
        states = [self._take(path, found, owners) for path, found in read.items()]
        return Reading(self._together(), tuple(states or [self._empty()]))

    @property
    def good(self) -> Mapping[Path, Wiring]:
        """Every file with its last good links."""
        return self._good

    def read_first(self, found: Callable[[], Iterable[Link]]) -> Reading:
        """Of whoever has read nothing so far: without good files, the wires that are ``found``."""
        reading = self.read()
        if reading.state != "loaded":
            self.keep(found())
            reading = self.read()
        return reading

    def imagine(self, name: str, text: bytes, instead: str = "") -> tuple[Path, Reading]:
        """What reading would give if ``text``, of a file called ``name``, stood where it belongs.

        That is the one file, or in the directory the one of that name or called ``instead``; of the
        others there only those that can be read, since this one is not to blame for them.
        Changes nothing. What is refused is told, never raised.
        """
        try:
            return self._imagine(name, text, instead)
        except OSError as error:
            return self.path, Reading(Wiring(), (self._unreadable(error),))

    def _imagine(self, name: str, text: bytes, instead: str) -> tuple[Path, Reading]:
        names = self._names()
        place = self.path if names is None else self.path / Path(instead or name).name
        if problem := self._misplaced(place, name, instead):
            return place, Reading(Wiring(), (FileState(place, "rejected", problems=(problem,)),))
        other = Files(self.path, self._disk, identity=self._identity)
        other._good, other._found, other._host = dict(self._good), self._found, self._host
        read = {path: self._read(path) for path in self._paths() if path != place}
        try:
            read[place] = parser.parse(text, name, pcap_filter.fault)
        except ConfigError as error:
            read[place] = error
        other._drop_all_but(read)
        read |= other._find_host(read)
        refused = {path for path, found in read.items() if isinstance(found, ConfigError)} - {place}
        states = [state for state in other._take_all(read) if state.path not in refused]
        if names and place.name not in names:
            states = [state._replace(problems=_with_way_out(state.problems)) for state in states]
        return place, Reading(other._together(), tuple(states))

    def _misplaced(self, place: Path, name: str, instead: str) -> Problem | None:
        """Why a draft can stand in no place here."""
        if place == self.path:
            if instead and Path(instead).name != place.name:
                return Problem.of_file(name, f"the daemon has one file, {place}", "leave out --as")
        elif not signature.counts(place.name):
            hint = "name it *.yaml, without a leading dot, or say --as NAME.yaml"
            return Problem.of_file(name, f"{place.name} would be ignored in {self.path}", hint)
        return None

    def _read_paths(self) -> list[FileState]:
        paths = self._paths()
        self._drop_all_but(paths)
        read = {path: self._read(path, self._good.get(path)) for path in paths}
        return self._take_all(read) or [self._empty()]

    def _drop_all_but(self, paths: Collection[Path]) -> None:
        """A removed file takes its links along.

        Not so a directory that is away for a moment, nor one that is empty where the file was.
        """
        if self._good.keys() <= set(paths):
            return
        if self._ask(signature.signature, self.path) and (paths or self.path not in self._good):
            self._good = {path: good for path, good in self._good.items() if path in paths}

    def _unreadable(self, error: OSError) -> FileState:
        problem = Problem.of_file(self.path, f"cannot be read: {error.strerror or error}")
        unreachable = isinstance(error, UnreachableError)
        return FileState(self.path, "rejected", problems=(problem,), unreachable=unreachable)

    def _empty(self) -> FileState:
        """At a start more likely a mount that is not there yet than the wish for no wires."""
        hint = "a file with `links: {}` says that nothing is to be connected"
        problem = Problem.of_file(self.path, "there is no *.yaml in this directory", hint)
        return FileState(self.path, "missing", problems=(problem,))

    def _paths(self) -> list[Path]:
        names = self._names()
        if names is None:
            return [self.path]
        return [self.path / name for name in names if signature.counts(name)]

    def _names(self) -> list[str] | None:
        """What is in the directory; None where it is none."""
        return self._ask(signature.names, self.path)

    def _ask(self, look: Callable[[str], _Answer], path: Path) -> _Answer:
        return self._disk.ask(look, str(path.absolute()))

    def _read(self, path: Path, known: Wiring | None = None) -> Wiring | ConfigError:
        """Whatever goes wrong with one file is told of that file, and keeps nobody from others."""
        try:
            return reader.parsed(self._ask(reader.read, path), path, known)
        except ConfigError as error:
            return error
        except UnreachableError as error:
            hint = "its last good links stay; is its server dead?"
            return UnreachableFile([_unreachable(path, error, hint)])
        except Exception as error:  # noqa: BLE001 - one file can never end the daemon
            text = f"cannot be judged: {type(error).__name__}: {error}"
            hint = "a defect of xconnectd: please report it"
            return ConfigError([Problem.of_file(path, printable(text), hint)])

    def _take_all(self, read: Mapping[Path, Wiring | ConfigError]) -> list[FileState]:
        """Unchanged files first, so that an end stays with the file that has it."""
        if lost := self._find_host(read):
            read = {path: lost.get(path, found) for path, found in read.items()}
        owners = _Owners()
        states = {}
        for path in sorted(read, key=lambda path: (*self._claim(path, read[path]), path)):
            states[path] = self._take(path, read[path], owners)
            if len(read) > 1:
                owners.add(path, self._good.get(path, Wiring()))
        return [states[path] for path in read]

    def _find_host(self, read: Mapping[Path, Wiring | ConfigError]) -> Mapping[Path, ConfigError]:
        """Finds out which host this is; files that need to know, if nobody can say it."""
        wirings = [(path, each) for path, each in read.items() if isinstance(each, Wiring)]
        named = {path: each for path, each in wirings if each.hosts}
        if not (named and self._identity):
            return {}
        try:
            known = chain.from_iterable(each.hosts for each in named.values())
            self._host = self._identity.among(known)
        except UnknownHostError as error:
            return {
                path: UnknownHostFile([_problem(path, each.hosts_place, error.reason, error.hint)])
                for path, each in named.items()
            }
        return {}

    def _part(self, path: Path, wiring: Wiring) -> Wiring:
        """What this host does of a file."""
        if not (self._host and wiring.hosts):
            return wiring
        before = self._parts.get(path)
        part = hosts.links_of(wiring, self._host, before)
        self._parts[path] = hosts.Part(wiring, part)
        return part

    def _claim(self, path: Path, found: Wiring | ConfigError) -> tuple[bool, int]:
        """The less it is, the better is a file's right to its ends.

        That is whether it is new, and how many of its links would move an end that is wired.
        """
        known = self._good.get(path)
        if isinstance(found, ConfigError):
            return known is None, 0
        is_new = known is None or (found.links, found.metrics) != (known.links, known.metrics)
        if not self._found:
            return is_new, 0
        standing = {name: names for names in map(_names, self._found) for name in names}
        links = self._part(path, found).links
        return is_new, len([link for link in links if _moves(link, standing)])

    def _take(self, path: Path, found: Wiring | ConfigError, owners: _Owners) -> FileState:
        if isinstance(found, ConfigError):
            state = "missing" if isinstance(found, ConfigMissing) else "rejected"
            return FileState(
                path,
                state,
                problems=found.problems,
                unreachable=isinstance(found, UnreachableFile),
                host_unknown=isinstance(found, UnknownHostFile),
            )
        clashes = tuple(owners.clashes(path, found))
        if clashes:
            return FileState(path, "rejected", found, clashes)
        self._good[path] = found
        return FileState(path, "loaded", found)

    def _together(self) -> Wiring:
        wirings = [self._part(*each) for each in self._good.items()]
        if len(wirings) == 1 and not self._found:
            return wirings[0]
        links = [*chain.from_iterable(wiring.links for wiring in wirings)]
        if self._found:
            named = {it for link in links for end in link.ends for it in (end.name, end.written)}
            links += [link for link in self._found if named.isdisjoint(_names(link))]
        hashes = (wiring.hash for wiring in wirings)
        text = wirings[0].text if len(wirings) == 1 else "".join(hashes).encode()
        warnings = tuple(warning for wiring in wirings for warning in wiring.warnings)
        metrics = next((wiring.metrics for wiring in wirings if wiring.metrics), None)
        known = dict(chain.from_iterable(wiring.hosts for wiring in wirings))
        key = next((wiring.hosts_key for wiring in wirings if wiring.hosts_key), "")
        return Wiring(
            tuple(links),
            warnings,
            metrics,
            text,
            hosts=tuple(known.items()),
            hosts_key=key,
            host=self._host if known else "",
        )


def _with_way_out(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """A draft that was to replace a file has its links, and counts as a new one by its name."""
    hint = f"{_ONE_OF_ONE}; if the draft replaces that file: --as its name"
    return tuple(
        each._replace(hint=hint) if each.hint == _ONE_OF_ONE else each for each in problems
    )


def _names(link: Link) -> frozenset[str]:
    """What a file calls the ends of a link."""
    return frozenset(end.text for end in link.ends)


def _moves(link: Link, standing: Mapping[str, frozenset[str]]) -> bool:
    """Whether an end of this link is wired to something else (``standing``: in which pair)."""
    names = _names(link)
    return any(standing.get(name, names) != names for name in names)


class _Spot(NamedTuple):
    """Where a file claims something."""

    path: Path
    place: Place | None

    def __str__(self) -> str:
        return (
            f"{self.path}:{self.place.line}:{self.place.column}" if self.place else f"{self.path}"
        )


class _Owners:
    """What belongs to one file alone, as ends of links and where metrics are served.

    A node and a host belong to all of them: their names mean the same in each.
    """

    def __init__(self) -> None:
        self._ends: dict[str, list[_Spot]] = {}
        self._ends_on_hosts: dict[str, list[_Spot]] = {}
        """By what they are called there."""
        self._tunnels: dict[hosts.Taken, dict[Path, tuple[Link, _Spot]]] = {}
        self._nodes: dict[str, dict[Path, tuple[Node, _Spot]]] = {}
        self._hosts: dict[str, list[tuple[str, _Spot]]] = {}
        self._keys: list[tuple[str, _Spot]] = []
        self._metrics: list[_Spot] = []

    def add(self, path: Path, wiring: Wiring) -> None:
        for link in wiring.links:
            spot = _Spot(path, link.place)
            for end in link.ends:
                self._ends.setdefault(end.name, []).append(spot)
                if end.host:
                    self._ends_on_hosts.setdefault(ends.bare(end), []).append(spot)
            for taken in hosts.takes(link) if hosts.vni(link) else ():
                self._tunnels.setdefault(taken, {}).setdefault(path, (link, spot))
        for node, place in _nodes(wiring).items():
            self._nodes.setdefault(node.name, {})[path] = node, _Spot(path, place)
        spot = _Spot(path, wiring.hosts_place)
        for name, address in wiring.hosts:
            self._hosts.setdefault(name, []).append((address, spot))
        if wiring.hosts:
            self._keys.append((wiring.hosts_key, spot))
        if wiring.metrics:
            self._metrics.append(_Spot(path, wiring.metrics.place))

    def clashes(self, path: Path, wiring: Wiring) -> Iterable[Problem]:
        """What the file at ``path`` claims and another one has."""
        for link in wiring.links if self._ends else ():
            for end in link.ends:
                if owner := _another(path, self._ends.get(end.name, ())):
                    text = f"{end} is an end of a link in {owner} already"
                    yield _problem(path, link.place, text, _ONE_OF_ONE)
                everywhere = (self._ends if end.host else self._ends_on_hosts).get(ends.bare(end))
                if everywhere and (owner := _another(path, everywhere)):
                    text = f"{ends.bare(end)} is an end of a link in {owner} already"
                    hint = "an end without a host is on every host: say which host it is on"
                    yield _problem(path, link.place, text, hint)
            if self._tunnels and hosts.vni(link):
                yield from self._tunnel_clashes(path, link)
        for node, place in _nodes(wiring).items() if self._nodes else ():
            named = self._nodes.get(node.name, {}).values()
            if owner := _another(path, [spot for other, spot in named if other != node]):
                text = f"{node.name} is another node in {owner}"
                yield _problem(path, place, text, _ONE_MEANING)
        if wiring.hosts:
            yield from self._host_clashes(path, wiring)
        if wiring.metrics and (owner := _another(path, self._metrics)):
            text = f"`metrics` stands in {owner} already"
            yield _problem(path, wiring.metrics.place, text, "one daemon, one place to ask it")

    def _tunnel_clashes(self, path: Path, link: Link) -> Iterable[Problem]:
        """Two tunnels of one VNI on a host."""
        found = (self._tunnels.get(each, {}).items() for each in hosts.meets(link))
        others = [it for place, it in chain.from_iterable(found) if place != path]
        for other, spot in others[:1]:
            text = f"the tunnel of {link.id} has the VNI {hosts.vni(link)}, as that of {other.id}"
            hint = "give one of them another: `vni: N` in the long form"
            yield _problem(path, link.place, f"{text} in {spot}", hint)

    def _host_clashes(self, path: Path, wiring: Wiring) -> Iterable[Problem]:
        for name, address in wiring.hosts:
            others = [spot for at, spot in self._hosts.get(name, ()) if at != address]
            if owner := _another(path, others):
                text = f"the host {name} has another address in {owner}"
                yield _problem(path, wiring.hosts_place, text, _ONE_HOST)
        if owner := _another(path, [spot for key, spot in self._keys if key != wiring.hosts_key]):
            text = f"there is another `hosts_key` in {owner}"
            yield _problem(path, wiring.hosts_place, text, "or none: it is the same in every file")


def _nodes(wiring: Wiring) -> dict[Node, Place | None]:
    """The nodes of a file's ends, and the first link of each."""
    found: dict[Node, Place | None] = {}
    for link in wiring.links:
        for end in link.ends if link.a.node or link.b.node else ():
            if end.node:
                found.setdefault(end.node, link.place)
    return found


def _another(path: Path, spots: Iterable[_Spot]) -> _Spot | None:
    """The first of them in another file than this."""
    return next((spot for spot in spots if spot.path != path), None)


def _problem(path: Path, place: Place | None, text: str, hint: str) -> Problem:
    return Problem(str(path), *(place or Place(1, 1)), text, hint)
