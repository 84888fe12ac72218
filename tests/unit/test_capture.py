"""Captures without a kernel: records, rings, filters, accounts and what is written."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xconnectd import pcap_filter
from xconnectd.capture import recording, session, tap
from xconnectd.capture.forms import Lines, Pcapng, Way, describe
from xconnectd.capture.recording import Recording
from xconnectd.capture.tap import Frame, Tally
from xconnectd.capture.tcpdump import Directions
from xconnectd.dataplane import btf, perf_buffer
from xconnectd.errors import XconnectError
from xconnectd.pcap_filter import Filter, FilterError
from xconnectd.status.document import spellings

WAYS = (Way(0, "va:vb", "va", "vb"), Way(1, "va:vb", "vb", "va"))
HEAD = bytes.fromhex("0200000000020200000000010800")


def record(
    frame: bytes, *, at: int = 1, end: int = 0, length: int = 0, tag: bytes = bytes(4)
) -> bytes:
    """As the kernel lays one down: padded to eight bytes."""
    body = struct.pack("=QIH", at, length or len(frame), end)
    body += tag[:2] + struct.pack("=H", int.from_bytes(tag[2:])) + frame
    size = len(body) + 12 + -(len(body) + 12) % 8
    return struct.pack("=IHHI", perf_buffer.SAMPLE, 0, size, size - 12) + body.ljust(
        size - 12, b"\xee"
    )


LOST = struct.pack("=IHHQQ", 2, 0, 24, 7, 3)


TAG = b"\x88\xa8\x20\x05"
SENT = [HEAD + bytes([n]) * n for n in range(20)]
RECORDS = {
    "of any padding": (
        b"".join(record(frame, at=n, end=n % 2) for n, frame in enumerate(SENT)),
        [Frame(n, n % 2, len(frame), frame) for n, frame in enumerate(SENT)],
    ),
    "around a note of losses": (
        record(HEAD) + LOST + record(HEAD, at=2),
        [Frame(1, 0, 14, HEAD), Frame(2, 0, 14, HEAD)],
    ),
    "cut short": (record(HEAD + b"abcd", length=1500), [Frame(1, 0, 1500, HEAD + b"abcd")]),
    "with a tag beside it, which goes back into it": (
        record(HEAD + b"data", tag=TAG),
        [Frame(1, 0, 22, HEAD[:12] + TAG + HEAD[12:] + b"data")],
    ),
}


@pytest.mark.parametrize(("data", "frames"), RECORDS.values(), ids=RECORDS)
def test_records_become_frames(data: bytes, frames: list[Frame]) -> None:
    assert list(tap.frames(data, 1000)) == frames


def test_what_is_beyond_the_length_that_is_kept_is_not_made_up() -> None:
    """And the longest frame fits into a record and into the smallest ring."""
    (frame,) = tap.frames(record(HEAD + b"abcd", length=1500), 16)
    assert frame == Frame(1, 0, 1500, HEAD + b"ab")
    assert len(record(bytes(tap.LONGEST))) <= 0xFFF8
    assert tap.LONGEST > 65_226  # the largest that TCP makes
    sizes = (0, 131_072, 262_143, 1 << 25)
    assert [*map(perf_buffer._power_of_two, sizes)] == [131_072, 131_072, 131_072, 1 << 25]


@pytest.mark.skipif(not Path("/sys/kernel/btf/vmlinux").exists(), reason="no BTF in this kernel")
def test_fields_are_found_in_unnamed_and_nested_parts_and_what_lacks_is_named() -> None:
    with btf.Kernel() as kernel:
        assert kernel.offset("list_head", "prev") == struct.calcsize("P")
        assert kernel.offset("sk_buff", "next") == 0
        assert kernel.offset("sk_buff", "dev") > 0
        assert kernel.offset("net_device", "nd_net.net") == kernel.offset("net_device", "nd_net")
        assert kernel.field("sk_buff", "cloned").width == 1
        assert kernel.tracepoint("netif_receive_skb") > 0
        for ask, words in (
            (lambda: kernel.offset("sk_buff", "nosuch"), "struct sk_buff has no nosuch"),
            (lambda: kernel.offset("nosuch", "x"), "no nosuch"),
            (lambda: kernel.tracepoint("nosuch"), "btf_trace_nosuch"),
        ):
            with pytest.raises(LookupError, match=words):
                ask()


ARP = HEAD[:12] + b"\x08\x06" + bytes(28)
TAGGED = ARP[:12] + b"\x81\0\0\x05" + ARP[12:]


@pytest.mark.parametrize(
    ("words", "judged"),
    [("arp", [1, 0, 0]), ("vlan 5 and arp", [0, 1, 0]), ("greater 1000", [0, 0, 0])],
)
def test_a_filter_judges_whole_frames(words: str, judged: list[int]) -> None:
    judge = Filter(words)
    assert [judge(frame, len(frame)) for frame in (ARP, TAGGED, HEAD)] == judged
    assert judge(ARP, 1500) == (words != "vlan 5 and arp"), "by the length that it had"


def test_a_bad_filter_is_named_and_a_missing_library_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FilterError, match="filter 'port or': "):
        Filter("port or")
    monkeypatch.setattr(pcap_filter, "_NAMES", ("libnosuch.so.9",))
    with pytest.raises(FilterError, match=r"install it \(Debian: libpcap0.8\)"):
        Filter("arp")


@pytest.mark.parametrize(
    ("kind", "words"),
    [("0800", "IPv4"), ("88b6", "0x88b6"), ("0026", "802.3"), ("81000005 86dd", "vlan 5 IPv6"),
     ("88a8e007 8100f005 0806", "vlan 7 vlan 5 ARP"), ("8100", "VLAN"), ("", "802.3")],
)  # fmt: skip
def test_a_frame_in_words(kind: str, words: str) -> None:
    addresses = "02:00:00:00:00:01 > 02:00:00:00:00:02"
    assert describe(HEAD[:12] + bytes.fromhex(kind)) == f"{addresses} {words}"


def test_a_cpu_lost_between_two_clocks_moves_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """For 20 ms in the first look and in the second, by clocks that are a second apart."""
    steady, wall = iter([0, 20, 20, 40, 40, 40]), iter([1020, 1020, 1040])
    clocks = SimpleNamespace(monotonic_ns=lambda: next(steady), time_ns=lambda: next(wall))
    monkeypatch.setattr(recording, "time", clocks)
    assert recording._wall() == 1000


class Script:
    """A tap that receives what a test says; on the kernel it is held by netns/test_capture."""

    def __init__(self, *batches: list[Frame]) -> None:
        self._batches = list(batches)
        self.recording: Recording
        self.listening: dict[int, tuple[int, int | None]] = {}
        self.read_fd, self._write_fd = os.pipe()

    def fileno(self) -> int:
        return self.read_fd

    def attach(self, end: int, ifindex: int, program: int | None = None) -> None:
        self.listening[end] = (ifindex, program)

    def detach(self, end: int) -> None:
        self.listening.pop(end, None)

    def read(self) -> list[Frame]:
        if not self._batches:
            self.recording.stop()
            return []
        return self._batches.pop(0)

    def tally(self, end: int) -> Tally:
        assert not self.listening
        return Tally(10 + end, 2)


def play(script: Script, form: Any, output: int, **more: Any) -> tuple[Recording, list[str], bool]:
    said: list[str] = []
    where = {"place": lambda _: (5, None), "say": said.append}
    script.recording = Recording(script, WAYS, form, output=output, **{**where, **more})  # type: ignore[arg-type]
    return script.recording, said, script.recording.run()


def written(
    script: Script, form: Any, tmp_path: Path, **more: Any
) -> tuple[Recording, bytes, list[str]]:
    with (tmp_path / "out").open("wb") as file:
        recording, said, is_whole = play(script, form, file.fileno(), **more)
    assert is_whole
    return recording, (tmp_path / "out").read_bytes(), said


FRAMES = [Frame(n, n % 2, 64, HEAD + bytes([n]) * 50) for n in range(6)]


def test_frames_are_written_and_accounted_for(tmp_path: Path) -> None:
    """All of them, or so many, but for those that a filter leaves out."""
    recording, data, said = written(Script(FRAMES[:3], [], FRAMES[3:]), Lines(WAYS), tmp_path)
    lines = data.decode().splitlines()
    assert [line.split()[1:4] for line in lines] == [["va", "→", "vb"], ["vb", "→", "va"]] * 3
    accounts = recording.accounts.values()
    assert [(each.kept, each.tally.received) for each in accounts] == [(3, 10), (3, 11)]
    assert said == []
    few = {"count": 2, "filter_": lambda data, _: data[-1] > 2}
    recording, data, _ = written(Script(FRAMES), Lines(WAYS), tmp_path, **few)
    accounts = recording.accounts.values()
    assert len(data.splitlines()) == sum(each.kept for each in accounts) == 2
    assert sum(each.filtered_out for each in accounts) == 3


def test_a_file_begins_and_ends_as_it_should(tmp_path: Path) -> None:
    form = Pcapng(WAYS, 20, "arp")
    _, data, _ = written(Script(FRAMES), form, tmp_path)
    kinds, at = [], 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        kinds.append(kind)
        at += size
    assert kinds == [0x0A0D0D0A, 1, 1, *[6] * 6, 5, 5]
    assert b"link va:vb" in data
    assert HEAD + b"\5" * 6 in data
    assert HEAD + b"\5" * 7 not in data


def test_a_name_of_any_bytes_is_written_as_one_that_no_terminal_obeys() -> None:
    ways = (Way(0, "x\x1b[2J\udcff:b", "x\x1b[2J\udcff", "b"),)
    (frame, *_) = FRAMES
    texts = Lines(ways).frames([frame._replace(end=0)], 0), Pcapng(ways, 64, "").begin()
    assert ["x�[2J�".encode() in text for text in texts] == [True, True]
    assert not any(b"\x1b" in text for text in texts)


def test_an_end_that_is_missing_is_waited_for_and_a_reader_that_went_ends_it() -> None:
    reading, writing = os.pipe()
    try:
        _, said, _ = play(Script([]), Lines(WAYS), writing, place={"va": (7, 3)}.get)
        assert said == ["vb does not exist; waiting for it"]
        os.close(reading)
        assert not play(Script(FRAMES), Lines(WAYS), writing, say=pytest.fail)[2]
    finally:
        os.close(writing)


def test_what_is_left_is_read_after_the_taps_are_off(tmp_path: Path) -> None:
    """So that what was received is what was kept, passed by or lost."""

    class Late(Script):
        def read(self) -> list[Frame]:
            if self.listening:
                self.recording.stop()
                return []
            return FRAMES

    _, data, _ = written(Late(), Lines(WAYS), tmp_path)
    assert len(data.splitlines()) == len(FRAMES)


def test_frames_of_several_rings_are_put_in_order() -> None:
    """A frame newer than the look waits, so that one of another CPU can still come before it."""
    old, late, new = (Frame(when, 0, 14, HEAD) for when in (1, 5, 7))
    ready, held = tap.in_order([new, old], 6)
    assert (ready, held) == ([old], [new])
    assert tap.in_order([*held, late], 8) == ([late, new], [])


def test_directions_are_put_into_the_lines_of_their_frames() -> None:
    """A frame may have further lines; one that looks like a first line is not taken for it."""
    directions = Directions()
    directions.expect(["va → vb", "vb → va"])
    directions.expect(["va → vb"])
    printed = (
        "    1  12:00:00.000001 02:01 > 02:02, ethertype Unknown (0x88b6), length 64: \n",
        "\t0x0000:  0001 0203\n",
        "    3  12:00:00.000001 of the frame's own making\n",
        "    2  12:00:00.000002 [|ether]\n",
        "    3  12:00:00.000003 02:02 > 02:01, ARP\n",
    )
    assert [directions.put_into(line.encode()).decode() for line in printed] == [
        "12:00:00.000001 va → vb 02:01 > 02:02, ethertype Unknown (0x88b6), length 64: \n",
        *printed[1:3],
        "12:00:00.000002 vb → va [|ether]\n",
        "12:00:00.000003 va → vb 02:02 > 02:01, ARP\n",
    ]


def _link(a: str, b: str) -> SimpleNamespace:
    names = spellings(f"{a}:{b}", a, b)
    ways = tuple((SimpleNamespace(name=x), SimpleNamespace(name=y)) for x, y in ((a, b), (b, a)))
    return SimpleNamespace(link=names[0], names=names, ways=ways[: len({a, b})])


WIRING: Any = SimpleNamespace(
    links=[_link("va", "vb"), _link("vc", "vd"), _link("plug", "plug")],
    config=SimpleNamespace(path="lab.yaml", state="loaded", problems=[]),
)


@pytest.mark.parametrize(
    ("words", "links", "rest"),
    [
        ("va icmp or arp", ["va:vb"], "icmp or arp"),
        ("vd:vc vb", ["vc:vd", "va:vb"], ""),
        ("va vb va:vb vc tcp port 80", ["va:vb", "vc:vd"], "tcp port 80"),
        ("va host vc", ["va:vb"], "host vc"),
        ("va (vc)", ["va:vb"], "(vc)"),
    ],
)
def test_leading_words_are_links_the_rest_a_filter(words: str, links: list[str], rest: str) -> None:
    found, left = session._asked(words.split(), WIRING)
    assert ([link.link for link in found], " ".join(left)) == (links, rest)
    with pytest.raises(XconnectError, match=r"no link arp in lab\.yaml"):
        session._asked(["arp", "va"], WIRING)


def test_directions_are_numbered_through_all_links() -> None:
    for direction, ways in (
        ("both", ["va → vb", "vb → va"]),
        ("a", ["va → vb"]),
        ("b", ["vb → va"]),
    ):
        found = session._ways([WIRING.links[0], WIRING.links[2]], direction)
        assert [str(way) for way in found] == [*ways, "plug → plug"]
        assert [way.end for way in found] == list(range(len(found)))
