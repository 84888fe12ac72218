"""What a file can cost whoever reads it: a second and 100 MB, whatever somebody put into it.

Each is judged in a process of its own under five times that, so that a slow machine is no failure:
what these bounds are for took minutes, or more memory.
"""

from __future__ import annotations

import os
import resource
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xconnectd.config import parser, yaml_tree
from xconnectd.errors import ConfigError

SECONDS = 5
MEMORY = 500 << 20

LONG = "y" * 4_000_000
_ALIASED = {"a name": "*s", "a mode": "{to: b, mode: *s}", "a key": "{to: b, *s : x}"}
HOSTILE = {
    f"a long text aliased as {what}": f"x-s: &s '{LONG}'\nlinks:\n"
    + "".join(f"  a{n}: {text}\n" for n in range(5_000))
    for what, text in _ALIASED.items()
} | {
    "TAG lines": "".join(f"%TAG !a{n}! tag:x\n" for n in range(400_000)) + "---\nlinks: {}\n",
    "unknown keys merged into links": (
        f"x-k: &k {{{', '.join(f'unknown{n}: 1' for n in range(1000))}}}\nlinks:\n"
        + "".join(f"  a{n}: {{<<: *k, to: b{n}}}\n" for n in range(400))
    ),
    "nodes in no link": (
        "nodes:\n"
        + "".join(f"  {'n' * 99}{n}: {{pid: 1}}\n" for n in range(70_000))
        + "links:\n"
        + "".join(f"  {'m' * 99}{n}:a: b{n}\n" for n in range(30_000))
    ),
    "one VNI on many hosts": (
        "hosts:\n"
        + "".join(f"  h{n}: 10.{n >> 16}.{n >> 8 & 255}.{n & 255}\n" for n in range(1, 8_193))
        + "links:\n"
        + "".join(f"  h{n}/a: {{to: h{n + 1}/b, vni: 1}}\n" for n in range(1, 8_192, 2))
    ),
    "hosts of one name and one address": (
        "hosts:\n"
        + "".join(f"  h{n}: 198.51.100.1\n" for n in range(8_192))
        + "links:\n"
        + "".join(f"  g{n}/a: h{n}/b\n" for n in range(30_000))
    ),
    "unknown keys": "".join(f"u{n}: 1\n" for n in range(200_000)) + "links: {}\n",
    "two long keys that are equal": (
        f"x-s: &s '{LONG}'\nx-t: &t '{LONG}'\nx-m: {{*s : 1, {'*t : 1, ' * 40_000}}}\nlinks: {{}}\n"
    ),
}


def judged(data: bytes) -> str:
    """Why the process that read this ended badly; empty if it did not."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
            told = sum(len(str(problem)) for problem in _problems(data))
            os._exit(0 if told < 1 << 20 else 2)
        except BaseException:  # noqa: BLE001 (MemoryError is what this is about)
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return "" if status == 0 else f"{data[:60]!r}: ended with {status}"


def _problems(data: bytes) -> tuple[object, ...]:
    try:
        parser.parse(data, "f")
    except ConfigError as error:
        return error.problems
    return ()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_judged_in_bounds(text: str) -> None:
    assert judged(text.encode()) == ""


PIECES = [
    "links:\n", "nodes:\n", "hosts:\n", "  h{n}: 10.0.0.1\n", "  h{n}/a: h0/b\n",
    "  n{n}: {{pid: 1}}\n", "  n{n}:a: n{n}:b\n",
    "x-a:\n", "  a: b\n", "  {n}: {{to: b{n}}}\n", "  {n}: {n}\n", "- ", "[", "]", "{{",
    "}}", "a, ", "a: b, ", "? a\n", "&a{n} ", "*a{n} ", "*a0 ", "<<: *a0\n", "!t ", "!t{n} b ", "'",
    '"', "\\x41", "|\n", " ", "\n", "# c\n", "%TAG !{n} x\n", "---\n", "...\n", "x" * 99,
    "\U0001f600",
    "x-{n}: &a{n} [*a0]\n", "  c{n}: {{<<: *a0, to: d{n}}}\n", "u{n}: 1\n", "\0", "\t", "é",
]  # fmt: skip


@settings(max_examples=25, suppress_health_check=[*HealthCheck])
@given(
    st.sampled_from(["links:\n", "x-a: &a0 {to: b, mode: x}\nlinks:\n", "x-0: &a0 [x]\n", ""]),
    st.lists(
        st.tuples(st.sampled_from(PIECES), st.sampled_from([1, 3, 1_000, 50_000])), max_size=5
    ),
)
def test_any_repetition_is_judged_in_bounds(head: str, pieces: list[tuple[str, int]]) -> None:
    body = "".join(piece.format(n=n) for piece, count in pieces for n in range(count))
    assert judged(f"{head}{body}".encode()[: yaml_tree.MAX_BYTES]) == ""


def test_what_is_refused_is_not_kept_by_the_error() -> None:
    """The frames of another error behind it have the tree of the whole file."""
    with pytest.raises(ConfigError) as refused:
        parser.parse("links: [", "x.yaml")
    assert refused.value.__context__ is None
