"""What a wire does to the frames that cross it one way: delay, loss, rate and the like. Pure.

Times are nanoseconds, rates bits per second, shares from 0 to 1; texts are as ``tc`` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple


class Distribution(StrEnum):
    """How delays lie around their mean, ``jitter`` being their deviation (tc-netem(8))."""

    UNIFORM = "uniform"
    NORMAL = "normal"
    PARETO = "pareto"
    PARETONORMAL = "paretonormal"


class Impairment(NamedTuple):
    """What happens to frames one way. What is not said does not happen.

    ``loss`` is the share of frames that is lost; with ``burst`` they are lost in runs of so many in
    the mean (Gilbert's model), without it each on its own. ``limit`` is how many frames may wait,
    0: as many as ``rate`` and ``delay`` need. ``drop`` is a libpcap expression.
    """

    delay: int = 0
    jitter: int = 0
    distribution: Distribution = Distribution.UNIFORM
    loss: float = 0.0
    burst: float = 0.0
    corrupt: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    rate: int = 0
    limit: int = 0
    seed: int | None = None
    drop: str = ""

    def __bool__(self) -> bool:
        return self != UNIMPAIRED

    @property
    def loses_all(self) -> bool:
        """A black hole, whatever else there is."""
        return self.loss >= 1

    @property
    def needs_netem(self) -> bool:
        """Whether sch_netem does any of it."""
        shares = (self.loss, self.corrupt, self.duplicate, self.reorder)
        return not self.loses_all and bool(self.delay or any(shares))

    @property
    def replaces_queue(self) -> bool:
        """Whether any of it is done by the device's queueing discipline."""
        return bool(self.rate or self.loses_all or self.needs_netem)


UNIMPAIRED: Final = Impairment()


class Impairments(NamedTuple):
    """Both directions of a link: ``forward`` from its end ``a`` to ``b``.

    ``passing`` are those of them that a command has put there, until that ends.
    ``as_found``: whatever the kernel does, for a wire that no file describes.
    """

    forward: Impairment = UNIMPAIRED
    reverse: Impairment = UNIMPAIRED
    as_found: bool = False
    passing: tuple[str, ...] = ()
    until: float | None = None

    @property
    def turned(self) -> Impairments:
        """Of the link with its ends exchanged."""
        return self._replace(forward=self.reverse, reverse=self.forward)


class Passing(NamedTuple):
    """What a command made of a link, in place of what the file says.

    ``ways`` is what meets frames by the end where they come in. ``until`` is when it ends, in
    seconds since the epoch, None for when somebody clears it.
    """

    ways: Mapping[str, Impairment]
    until: float | None = None


# --------------------------------------------------------------------------- texts

LONGEST_DELAY: Final = 60 * 10**9
LOWEST_RATE: Final = 1000
HIGHEST_RATE: Final = 100 * 10**9
MOST_FRAMES: Final = 1_000_000
LONGEST_BURST: Final = 1_000_000
LARGEST_SEED: Final = 2**64 - 1

TIME_PATTERN: Final = r"^[0-9]{1,20}(?:\.[0-9]{1,12})?(?:[nNuUmM]?[sS]|[nNuUmM]?[sS][eE][cC][sS]?)$"
RATE_PATTERN: Final = r"^[0-9]{1,20}(?:\.[0-9]{1,12})?(?:[kKmMgG][iI]?)?[bB][iI][tT]$"
SHARE_PATTERN: Final = r"^(?:100(?:\.0{1,12})?|0*[0-9]{1,2}(?:\.[0-9]{1,12})?)%$"
"""For editors; what reads a value knows its range, too."""

LONGEST_FILTER: Final = 200
FILTER_PATTERN: Final = rf"^[!-~](?:[ -~]{{0,{LONGEST_FILTER - 2}}}[!-~])?(?![\s\S])"
"""It is part of the name of a filter of the kernel's, which has room for 255."""

_TIMES: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_LONG_TIMES: Final = {"nsec": "ns", "usec": "us", "msec": "ms", "sec": "s"}
_RATES: Final = {
    "bit": 1,
    "kbit": 10**3,
    "mbit": 10**6,
    "gbit": 10**9,
    "kibit": 2**10,
    "mibit": 2**20,
    "gibit": 2**30,
}
_NUMBER: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,12})?)([a-zA-Z%]*)", re.ASCII)


def read_time(text: str) -> int:
    """``20ms`` in nanoseconds. Raises ``ValueError`` with two arguments: what is wrong, a hint."""
    number, unit = _number(text, "a time", "`20ms`")
    unit = _LONG_TIMES.get(unit.removesuffix("s") if len(unit) > 2 else unit, unit)
    if not unit and number:
        raise ValueError(f"`{text}` has no unit", f"for tc that is microseconds: `{text}us`")
    if unit not in _TIMES and number:
        raise ValueError(f"`{text}` is no time", f"a number and {', '.join(_TIMES)}: `20ms`")
    time = round(number * _TIMES.get(unit, 0))
    if time > LONGEST_DELAY:
        raise ValueError(f"`{text}` is more than a minute", "`60s` is the most")
    return time


def read_rate(text: str) -> int:
    """``100mbit`` in bits per second; raises as ``read_time``."""
    number, unit = _number(text, "a rate", "`100mbit`")
    if unit.endswith("bps"):
        bits = f"{number * 8:g}{unit.removesuffix('bps')}bit"
        raise ValueError(f"`{text}` is bytes per second for tc", f"in bits: `{bits}`")
    if unit not in _RATES:
        raise ValueError(f"`{text}` is no rate", "a number and bit, kbit, mbit or gbit: `100mbit`")
    rate = round(number * _RATES[unit])
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(f"`{text}` is out of range", "from `1kbit` to `100gbit`")
    return rate


def read_share(text: str) -> float:
    """``0.5%`` as 0.005; raises as ``read_time``."""
    number, unit = _number(text, "a share", "`0.5%`")
    if unit != "%":
        raise ValueError(f"`{text}` is no share", "a number and a percent sign: `0.5%`")
    if number > 100:
        raise ValueError(f"`{text}` is more than everything", "at most `100%`")
    return number / 100


def read_frames(text: str) -> int:
    """``1000``; raises as ``read_time``."""
    return _whole(text, 1, MOST_FRAMES, "frames")


def read_seed(text: str) -> int:
    """Raises as ``read_time``."""
    return _whole(text, 0, LARGEST_SEED, "a seed")


def read_filter(text: str) -> str:
    """A libpcap expression, as far as that can be seen here; raises as ``read_time``."""
    if not re.fullmatch(FILTER_PATTERN, text):
        problem = f"a filter is at most {LONGEST_FILTER} ASCII characters in one line"
        raise ValueError(problem, '`"udp port 3784"`')
    return text


def read_burst(text: str) -> float:
    """``5`` or ``2.5`` frames; raises as ``read_time``."""
    number, unit = _number(text, "a mean length of bursts, in frames", "`5`")
    if unit or not 1 <= number <= LONGEST_BURST:
        problem = f"`{text}` is no mean length of bursts, in frames"
        raise ValueError(problem, f"from 1 to {LONGEST_BURST}")
    return number


def _whole(text: str, least: int, most: int, what: str) -> int:
    if not re.fullmatch("[0-9]{1,20}", text, re.ASCII) or not least <= int(text) <= most:
        raise ValueError(f"`{text}` is no number of {what}", f"from {least} to {most}")
    return int(text)


def _number(text: str, what: str, example: str) -> tuple[float, str]:
    found = _NUMBER.fullmatch(text)
    if not found:
        raise ValueError(f"`{text[:40]}` is not {what}", example)
    return float(found[1]), found[2].lower()


def contradiction(one: Impairment) -> tuple[str, str, str]:
    """The key that makes no sense with the others, why, and the way out; empty if all do."""
    if one.jitter and not one.delay:
        return "jitter", "`jitter` needs a `delay` to vary", "`delay: 20ms, jitter: 2ms`"
    if one.jitter > one.delay:
        return "jitter", "`jitter` is more than `delay`", "a frame cannot leave before it came"
    if one.distribution is not Distribution.UNIFORM and not one.jitter:
        return "distribution", "`distribution` needs a `jitter`", "`delay: 20ms, jitter: 2ms`"
    if one.reorder and not one.delay:
        hint = "frames that are reordered go at once, the others after `delay`"
        return "reorder", "`reorder` needs a `delay`", hint
    if one.burst and one.loss > (most := one.burst / (1 + one.burst)):
        hint = f"with bursts of {one.burst:g} at most {most:.1%}: between two a frame arrives"
        return "loss", f"a mean loss of {write_share(one.loss)} is not possible", hint
    return "", "", ""


# --------------------------------------------------------------------------- and back


def write_time(time: int) -> str:
    """As short as it goes: ``20ms``, ``1.5ms``."""
    unit = next(unit for unit in ("s", "ms", "us", "ns") if time >= _TIMES[unit] or unit == "ns")
    return f"{_decimal(time / _TIMES[unit])}{unit}"


def write_rate(rate: int) -> str:
    """``100mbit``."""
    units = ("gbit", "mbit", "kbit", "bit")
    unit = next(unit for unit in units if rate >= _RATES[unit] or unit == "bit")
    return f"{_decimal(rate / _RATES[unit])}{unit}"


def write_share(share: float) -> str:
    """``0.5%``."""
    return f"{_decimal(share * 100)}%"


def _decimal(number: float) -> str:
    return f"{number:.10f}".rstrip("0").rstrip(".")


def as_written(one: Impairment) -> dict[str, Any]:
    """As a file would have it: only what happens."""
    return dict(_written(one))


def _written(one: Impairment) -> Iterator[tuple[str, Any]]:
    for name in one._fields:
        value = getattr(one, name)
        if value == getattr(UNIMPAIRED, name) or name == "burst":
            continue
        if name == "loss" and one.burst:
            value = {"mean": write_share(one.loss), "burst": float(f"{one.burst:g}")}
        elif name in ("delay", "jitter"):
            value = write_time(value)
        elif name == "rate":
            value = write_rate(value)
        elif isinstance(value, float):
            value = write_share(value)
        yield name, str(value) if isinstance(value, Distribution) else value


def in_words(written: Mapping[str, Any]) -> str:
    """What ``as_written`` gives, in one line: ``delay 20ms, loss 1% in bursts of 5``."""
    return ", ".join(
        f"{key} {value['mean']} in bursts of {value['burst']:g}"
        if isinstance(value, dict)
        else f"{key} {value}"
        for key, value in written.items()
    )
