"""A hundred thousand odd files: each is a wiring or a list of problems, and never anything else.

``XCONNECTD_FUZZ_SEED`` repeats a run; a failure names the seed and the file.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from xconnectd.config import edit, parser
from xconnectd.errors import ConfigError
from xconnectd.model import Wiring

FILES = 100_000

GOOD = (
    "links:\n  eth0: tap0\n  veth2: veth3\n  br0.100: x5-eth1\n",
    (
        "version: 1\ndefaults: {mode: auto, admin: manage}\nx-o: &o {mode: tc, labels: {a: b}}\n"
        'links:\n  eth0: tap0\n  veth2: {<<: *o, to: veth3, enabled: true, description: "text"}\n'
        "  a: a\n"
    ),
    "metrics: {listen: '[::1]:9109'}\nlinks:\n  é: 日本\n  12: no\n  a: {to: b, enabled: false}\n",
    "links: {}\n",
)
PIECES = [
    "links:", "\n", "  ", "a", "b", ": ", "to: ", "mode: ", "tc", "{", "}", "[", "]", ",", "- ",
    "? ", "<<: ", "*o", "&o ", "!t ", "!!binary ", "'", '"', "\\", "\\x1b", "#", "|\n", ">-\n",
    "~", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n", "x-y: ", "\t", "@", "`", "true", "é",
    "\ud800", "\0", "\x85", "\u2028", "\r", "\ufeff", "\U0001f600", "eth0@if5", "<<<<<<< HEAD\n",
    "metrics: ", "defaults: ", "x" * 200, "  a: b\n", "  c: d\n", "unix:/", "[::1]:1",
    "2001-01-01", "1e3", "0x1f",
]  # fmt: skip


def odd_files(dice: random.Random) -> Iterator[bytes]:
    """Good files with damages; often several generations of one, as an editor saves them."""
    text = ""
    while True:
        if dice.random() < 0.5:
            text = dice.choice(GOOD)
        for _ in range(dice.randint(1, 2)):
            at = dice.randint(0, len(text))
            cut = dice.choice((0, 0, 0, 1, 2, 9))
            new = "".join(dice.choices(PIECES, k=dice.randint(0, 2)))
            text = text[:at] + new + text[at + cut :]
        data = bytearray(text.encode("utf-8", "surrogatepass"))
        if data and dice.random() < 0.1:
            data[dice.randrange(len(data))] = dice.randrange(256)
        yield bytes(data)


def judged(data: bytes) -> Wiring | None:
    try:
        return parser.parse(data, "f")
    except ConfigError as error:
        problems = error.problems
    assert problems
    assert all(str(problem).isprintable() for problem in problems)
    assert all(problem.line > 0 < problem.column for problem in problems)
    return None


def agrees(data: bytes, known: Wiring, wiring: Wiring | None) -> None:
    """What reads only the lines that changed gives the same, or leaves it to who reads all."""
    if (short := edit.edited(data, known)) is not None:
        assert wiring is not None
        assert short == wiring
        assert [link.place for link in short.links] == [link.place for link in wiring.links]


def test_a_hundred_thousand_odd_files() -> None:
    seed = os.environ.get("XCONNECTD_FUZZ_SEED") or str(random.SystemRandom().getrandbits(32))
    good, known = 0, Wiring()
    files = odd_files(random.Random(seed))
    for number, data in zip(range(FILES), files, strict=False):
        try:
            wiring = judged(data)
            agrees(data, known, wiring)
        except Exception as error:
            raise AssertionError(f"seed {seed}, file {number}: {data!r}") from error
        if wiring is not None:
            good, known = good + 1, wiring
    assert FILES * 0.02 < good < FILES * 0.9, "a fuzz that finds nothing good or bad is none"
