"""Programs that were loaded together, and the maps that are theirs alone.

An XDP program goes along when its device leaves the namespace, and works on there with the maps
it was loaded with. So what such a program looks up belongs to its generation: the next one gets a
copy, and the old one is emptied. Programs that read no such map are handed on.

Knows pins and libbpf, not what the programs do. Raises OSError as the kernel does.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

from xconnectd.dataplane import btf, compiler, libbpf
from xconnectd.dataplane.libbpf import Map, MapFormat
from xconnectd.dataplane.pins import Pins
from xconnectd.model import PROGRAM_NAME


class Recipe(NamedTuple):
    """How a program of the source is loaded."""

    source: str
    kind: int
    attach: int = 0
    flags: int = 0
    described: bool = False
    """With types (BTF), so that a capture can listen at its entry; where the kernel takes them."""


Recipes = Mapping[str, tuple[Recipe, ...]]
"""By role, which names the pin. The first recipe that this kernel can follow is taken."""

OWN_MAPS: Final = ("entries",)
"""What every generation has for itself: all maps that an XDP program decides by."""


class Generation:
    """One generation of programs, open.

    Attributes:
        path: where it is pinned.
        fds, ids: its programs by role.
        own: descriptors of the maps that are its own, by name.
        maps: the ids of all maps that its programs use.
        emptied: whether it forwards nothing any more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fds: dict[str, int] = {}
        self.ids: dict[str, int] = {}
        self.own: dict[str, int] = {}
        self.maps: frozenset[int] = frozenset()
        self.emptied = False

    @classmethod
    def open(cls, pins: Pins, path: Path) -> Self:
        """Whatever is pinned there: an older release may have pinned other roles.

        Before 0.2 all generations shared one map of entries, which was pinned beside them.
        """
        generation = cls(path)
        try:
            for pin in sorted(path.iterdir()):
                fd = libbpf.open_pin(pin)
                if pin.name in OWN_MAPS:
                    generation.own[pin.name] = fd
                else:
                    generation._add(pin.name, fd)
            for name in OWN_MAPS:
                generation._find_shared(name, pins)
        except BaseException:
            generation.close()
            raise
        return generation

    def _add(self, role: str, fd: int) -> None:
        self.fds[role] = fd
        info = libbpf.program_info(fd)
        self.ids[role] = info.id
        self.maps |= info.maps

    def _find_shared(self, name: str, pins: Pins) -> None:
        for pin in pins.maps(name):
            fd = libbpf.open_pin(pin)
            if name not in self.own and libbpf.map_id(fd) in self.maps:
                self.own[name] = fd
            else:
                os.close(fd)

    @classmethod
    def make(
        cls,
        path: Path,
        recipes: Recipes,
        code: compiler.Compiled,
        shared: Mapping[str, int],
        forms: Mapping[str, MapFormat],
        *,
        before: Generation | None = None,
        same_code: bool = False,
    ) -> Self:
        """Loads a generation that begins with what is in the maps of the one ``before``.

        Programs that only read ``shared`` maps are taken from there if it is of the ``same_code``.
        """
        generation = cls(path)
        try:
            for name in OWN_MAPS:
                generation.own[name] = libbpf.create_map(f"xc_{name}", forms[name])
                if before is not None and name in before.own:
                    _copy(before.own[name], generation.own[name])
            maps = {**shared, **generation.own}
            for role, choices in recipes.items():
                if before is not None and same_code and not _reads_own(choices, code):
                    generation._add(role, os.dup(before.fds[role]))
                else:
                    generation._add(role, _load(choices, code, maps))
        except BaseException:
            generation.close()
            raise
        return generation

    def pin(self, pins: Pins) -> None:
        pins.put_directory(self.path, {**self.fds, **self.own})

    @property
    def is_pinned(self) -> bool:
        return all((self.path / name).exists() for name in (*self.fds, *self.own))

    def is_complete(self, recipes: Recipes, shared: Mapping[str, int]) -> bool:
        """Whether nothing of it is missing and it works on its own and on these maps."""
        maps = (*shared.values(), *self.own.values())
        return (
            self.fds.keys() == recipes.keys()
            and self.own.keys() == set(OWN_MAPS)
            and self.maps == frozenset(map(libbpf.map_id, maps))
        )

    def remove(self, key: int) -> None:
        """Whatever runs its programs drops what comes in by this ifindex from now on."""
        for fd in self.own.values():
            Map(fd).delete(key)

    def empty(self) -> None:
        """Whatever runs its programs drops all from now on."""
        for fd in self.own.values():
            one = Map(fd)
            for key in one.items():
                one.delete(key)
        self.emptied = True

    def close(self) -> None:
        for fd in (*self.fds.values(), *self.own.values()):
            os.close(fd)
        self.fds.clear()
        self.own.clear()


def _copy(source: int, target: int) -> None:
    copy = Map(target)
    for key, value in Map(source).items().items():
        with suppress(OSError):  # its target has gone meanwhile
            copy.set(key, value)


def _reads_own(recipes: tuple[Recipe, ...], code: compiler.Compiled) -> bool:
    read = {name for recipe in recipes for _, name in code[recipe.source].relocations}
    return not read.isdisjoint(OWN_MAPS)


# --------------------------------------------------------------------------- loading


def _load(recipes: tuple[Recipe, ...], code: compiler.Compiled, maps: Mapping[str, int]) -> int:
    """An unknown flag is EINVAL: the next recipe then, and the last one's failure counts."""
    *preferred, last = recipes
    for recipe in preferred:
        try:
            return _load_one(recipe, code, maps)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return _load_one(last, code, maps)


def _load_one(recipe: Recipe, code: compiler.Compiled, maps: Mapping[str, int]) -> int:
    with _description() if recipe.described else nullcontext() as description:
        return libbpf.load_program(
            recipe.kind,
            PROGRAM_NAME,
            compiler.LICENSE,
            code[recipe.source].bound(maps),
            attach=recipe.attach,
            flags=recipe.flags,
            described=description,
        )


@contextmanager
def _description() -> Iterator[libbpf.Description | None]:
    """The types of an XDP program; None on a kernel that takes none, which is no reason to fail."""
    try:
        types = libbpf.load_btf(btf.describe_xdp(PROGRAM_NAME))
    except OSError:
        yield None
        return
    try:
        yield libbpf.Description(types, btf.ENTRY)
    finally:
        os.close(types)
