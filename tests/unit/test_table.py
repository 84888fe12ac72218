"""The table without a terminal: what stands where, in what order, and what keys do."""

from __future__ import annotations

from typing import Any

import pytest
from builders import crossing_report, end_report, report
from builders import link_report as link
from hypothesis import example, given
from hypothesis import strategies as st

from xconnectd.status import document, table
from xconnectd.status.table import Row, Sort, View


def end(name: str, frames: float = 0.0, bits: float = 0.0, **facts: Any) -> document.End:
    return end_report(name, frames_per_s=frames, bits_per_s=bits, **facts)


def rows(*links: document.Link) -> list[Row]:
    return table.rows(report(*links))


FLEET = rows(
    link("veth10", "tap0", description="spine1"),
    link("veth2", end("tap1", 5.0, 4000.0), warnings=("unequal MTU",)),
    link("veth1", "veth0", "down", reason="veth0 is administratively down"),
    link(end("lo", 9.0, 9e6, dropped={"no_entry": 7, "other": 1}), "x", labels={"lab": "Down"}),
    link("a", "nosuch", "waiting", reason="nosuch does not exist"),
    link("bad", "b", "failed", reason="a runs an XDP program that is not ours"),
)


ALL = ["a", "bad", "lo", "veth1", "veth2", "veth10"]
ARRANGED = [
    (Sort.NAME, "", ALL),
    (Sort.STATE, "", ["bad", "veth1", "a", "veth2", "lo", "veth10"]),
    (Sort.RATE, "", ["lo", "veth2", "a", "bad", "veth1", "veth10"]),
    (Sort.DROPS, "", ["lo", "a", "bad", "veth1", "veth2", "veth10"]),
    (Sort.NAME, "veth", ["veth1", "veth2", "veth10"]),
    (Sort.NAME, "TAP1 veth", ["veth2"]),
    (Sort.NAME, "spine", ["veth10"]),
    (Sort.NAME, "down", ["lo", "veth1"]),
    (Sort.NAME, "state:down", ["veth1"]),
    (Sort.NAME, "state:", ALL),
    (Sort.NAME, "not ours", ["bad"]),
    (Sort.NAME, "generic nothing", []),
]


@pytest.mark.parametrize(("sort", "wanted", "found"), ARRANGED)
def test_order_and_filter(sort: Sort, wanted: str, found: list[str]) -> None:
    assert [row.a for row in table.arrange(FLEET, sort, wanted)] == found


def test_other_hosts_have_a_column_with_how_far_or_how_long_ago() -> None:
    near = crossing_report()
    silent = crossing_report(alive=False, last_heard_age_s=31.0)
    unknown = crossing_report(last_heard_age_s=None, round_trip_ms=None)
    shown = rows(near, silent, unknown, link("a", "b"))
    (dead,) = rows(crossing_report(alive=None))
    assert dead.reason == "nobody here listens to h2"
    assert [row.peer for row in shown] == ["0.3ms", "31s", "-", ""]
    titles = [[each.title for each in table.columns(these, None)] for these in (shown, shown[3:])]
    assert ["PEER" in each for each in titles] == [True, False]
    assert all("PEER" not in each.title for each in table.columns(shown, 60))


def test_a_row_sums_losses_and_takes_the_latest_frame() -> None:
    """What the host says into a wire is dropped on purpose: nothing is lost."""
    a = end("a", dropped={"no_entry": 2, "mtu_exceeded": 3}, last_frame_age_s=7.5)
    b = end("b", dropped={"host_egress": 1}, last_frame_age_s=0.5)
    odd = link(end("\x1b[2J", node="x"), "b", "failed", reason="\x1b[2J program \x07")
    [row, plug, unknown, shown, passed] = rows(
        link(a, b, warnings=("unequal MTU",)),
        *(link(a, a), link("a", "b"), odd, link(end("a", passed_to_host=2), "b")),
    )
    assert (row.drops, row.age, row.reason) == (5, 0.5, "unequal MTU")
    assert plug.drops == 5, "one interface is counted once"
    assert (unknown.age, unknown.reason) == (None, "")
    told = ("�[2J", "�[2J program �")
    assert (shown.a, shown.reason) == told, "nothing that a terminal would obey"
    assert passed.reason.startswith("2 frames that came in by a bypassed all our hooks")


def cells(some: list[Row], width: int) -> list[dict[str, str]]:
    columns = table.columns(some, width)
    return [{column.title: column.cell(row) for column in columns} for row in some]


names = st.text("abcdeth0123456789-", min_size=1, max_size=60)


@given(names, names, st.integers(60, 250), st.text("abc ", max_size=200))
@example("a" * 9, "b" * 60, 60, "")  # which leaves the first name less than its half
def test_columns_fill_the_width_exactly(a: str, b: str, width: int, reason: str) -> None:
    some = rows(link(a, b, reason=reason))
    columns = table.columns(some, width)
    assert sum(column.width for column in columns) + table.GAP * (len(columns) - 1) == width
    assert all(len(column.title) <= column.width for column in columns)
    for column in columns:
        assert len(column.cell(some[0])) <= column.width, column.title
    assert table.is_cut(some, columns) == (reason != columns[-1].cell(some[0]))
    whole = table.columns(some, None)
    assert "".join(table.line(whole, some[0])).rstrip().endswith(reason.rstrip())
    assert "".join(table.line(whole, some[0])).startswith(f"{a} — {b} ")


BUSY = link(end("spine1-eth12", 1e6, 9e9, last_frame_age_s=0.1), "leaf2-eth3")
OURS = {"STATE": "connected", "MODE": "generic", "→bit/s": "9.00G", "←bit/s": "0", "DROPS": "0"}


def test_what_is_shown_in_how_many_columns() -> None:
    """All of it in eighty; a wide terminal shows frames, too, a narrow one what matters."""
    whole = {"LINK": "spine1-eth12 — leaf2-eth3", **OURS, "LAST": "0.1s", "REASON": ""}
    assert cells(rows(BUSY), 80) == [whole]
    bad = link("a", "b", "failed", reason="a runs an XDP program that is not ours: id 7")
    del whole["LAST"]
    assert cells(rows(BUSY, bad), 80)[0] == whole
    assert cells(rows(BUSY, bad), 80)[1]["REASON"] == "a runs an XDP p…"
    wide = cells(rows(BUSY), 120)[0]
    assert wide == {**wide, **OURS, "→f/s": "1.00M", "←f/s": "0", "LAST": "0.1s"}
    assert list(wide)[3:7] == ["→f/s", "→bit/s", "←f/s", "←bit/s"]
    assert list(cells(FLEET, 45)[0]) == ["LINK", "STATE", "→bit/s", "←bit/s", "REASON"]
    assert list(cells(FLEET, 10)[0]) == ["LINK", "STATE", "REASON"]


def test_a_line_has_its_state_apart_and_is_plain_for_a_pipe() -> None:
    some = rows(link(end("a", 1500.0, 12e6), "b", "down", reason="b has no carrier"))
    columns = table.columns(some, None)
    title, (before, state, rest) = "".join(table.line(columns)), table.line(columns, some[0])
    assert title.index("STATE") == len(before)
    assert (before.rstrip(), state.rstrip()) == ("a — b", "down")
    assert rest.endswith("b has no carrier")
    assert table.plain(some[0]) == (
        "a — b down generic → 1.50k frames/s 12.0 Mbit/s ← 0 frames/s 0 bit/s dropped 0"
        " (b has no carrier)"
    )


def test_an_arrow_for_a_link_that_leads_one_way() -> None:
    [row] = rows(link("a", "b")._replace(one_way=True))
    assert (row.name, table.plain(row).split(" connected")[0]) == ("a → b", "a → b")


def test_summary() -> None:
    words = "6 links: 3 connected, 1 waiting, 1 down, 1 failed"
    assert table.summary(FLEET, 6, "") == words
    assert table.summary(FLEET, 2, "veth") == f"{words}   2 with: veth"
    assert table.summary([], 0, "") == "0 links"


@pytest.mark.parametrize(
    ("typed", "keys"),
    [("qs", ["q", "s"]), ("\x1b[1;5C\x1b", ["", "\x1b"]),
     ("\x1b[A\x1bOB\x1b[5~\x1b[6~", ["up", "down", "page up", "page down"])],
)  # fmt: skip
def test_keys(typed: str, keys: list[str]) -> None:
    assert list(table.keys(typed)) == keys


def pressed(view: View, *keys: str, count: int = 200, height: int = 19) -> View:
    for key in keys:
        view = view.press(key, count, height)
    return view


def test_moving() -> None:
    moves = [("down", "j", "k"), ("up",), ("page down", " "), ("end", "down"), ("end", "page up")]
    assert [pressed(View(), *keys).cursor for keys in moves] == [1, 0, 38, 199, 180]
    assert pressed(View(), "end", "home", "", "x").cursor == 0
    assert pressed(View(), "down", count=0).cursor == 0
    assert pressed(View(), "s").sort is Sort.NAME
    assert pressed(View(), *"ssss").sort is Sort.STATE


@given(st.integers(0, 300), st.integers(1, 60), st.integers(0, 300))
def test_the_cursor_is_always_in_sight(cursor: int, height: int, count: int) -> None:
    view = View(cursor=cursor).within(count)
    first = view.first(count, height)
    assert first % height == 0 or first == count - height, "by whole pages"
    assert 0 <= first <= max(0, count - height)
    assert first <= view.cursor < first + height
