"""Impairments: what is read of the file, and what becomes of it in the (fake) kernel."""

from __future__ import annotations

import pytest
from builders import link, wiring
from driven import Keeper
from hypothesis import given
from hypothesis import strategies as st
from kernel import Book, Crash, Kernel, crash

from xconnectd import impairment
from xconnectd.config import impairments as blocks
from xconnectd.config.parser import parse
from xconnectd.errors import ConfigError
from xconnectd.impairment import Distribution, Impairment, Impairments
from xconnectd.model import Counters, End, Mode, Wiring
from xconnectd.reconcile import impairments
from xconnectd.shape import ROOT_HANDLE, RootQdisc, Shape
from xconnectd.status import drop_reasons

RATED = Impairment(rate=10_000_000)
LOSSY = Impairment(delay=20_000_000, loss=0.01)
HOLE = Impairment(loss=1.0)


def impaired(forward: Impairment = RATED, reverse: Impairment | None = None) -> Wiring:
    both = Impairments(forward, forward if reverse is None else reverse)
    return wiring(link("va", "vb", impair=both), "vc:vd")


def shape_at(kernel: Kernel, name: str) -> Shape | None:
    root = kernel.get(name).root
    return root.shape if root else None


def wanted(one: Impairment) -> Shape:
    return impairments.shape(one, 1500)


def does(kernel: Kernel, name: str, one: Impairment) -> bool:
    found = shape_at(kernel, name)
    return found is not None and found.does(wanted(one))


# --------------------------------------------------------------------------- what the file says


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{delay: 20ms, jitter: 2ms}", Impairment(delay=20_000_000, jitter=2_000_000)),
        ("{delay: 1.5s}", Impairment(delay=1_500_000_000)),
        ("{delay: 7usecs}", Impairment(delay=7000)),
        ("{loss: 0.5%}", Impairment(loss=0.005)),
        ("{loss: 100%}", HOLE),
        ("{loss: {mean: 1%, burst: 5}, seed: 7}", Impairment(loss=0.01, burst=5.0, seed=7)),
        ("{rate: 10Mbit, limit: 100}", RATED._replace(limit=100)),
        ("{rate: 8kibit}", Impairment(rate=8192)),
        ("{corrupt: 1%, duplicate: 2%}", Impairment(corrupt=0.01, duplicate=0.02)),
        (
            "{delay: 1ms, jitter: 1ms, distribution: pareto}",
            Impairment(delay=10**6, jitter=10**6, distribution=Distribution.PARETO),
        ),
    ],
)
def test_a_block_is_for_both_ways(text: str, expected: Impairment) -> None:
    (found,) = parse(f"links: {{a: {{to: b, impair: {text}}}}}", "f").links
    assert found.impair == Impairments(expected, expected)


def test_a_direction_that_is_not_said_is_not_impaired() -> None:
    (found,) = parse("links: {a: {to: b, impair: {reverse: {rate: 10mbit}}}}", "f").links
    assert found.impair == Impairments(reverse=RATED)


@pytest.mark.parametrize("text", ["{}", "{delay: 0ms}", "{forward: {}}", "{loss: 0%}"])
def test_a_block_that_does_nothing_is_none(text: str) -> None:
    (found,) = parse(f"links: {{a: {{to: b, mode: generic, impair: {text}}}}}", "f").links
    assert found.impair is None


BAD = [
    ("delay: 20", 30, "`delay`: `20` has no unit", "for tc that is microseconds: `20us`"),
    ("delay: 61s", 30, "`delay`: `61s` is more than a minute", "`60s` is the most"),
    ("delay: fast", 30, "`delay`: `fast` is not a time", "`20ms`"),
    ("loss: 0.01", 29, "`loss`: `0.01` is no share", "a number and a percent sign: `0.5%`"),
    ("loss: 101%", 29, "`loss`: `101%` is more than everything", "at most `100%`"),
    ("loss: {mean: 1%}", 29, "`loss` lacks `burst`", "`loss: {mean: 1%, burst: 5}`"),
    ("loss: {mean: 60%, burst: 1}", 23, "a mean loss of 60% is not possible",
     "with bursts of 1 at most 50.0%: between two a frame arrives"),
    ("rate: 5mbps", 29, "`rate`: `5mbps` is bytes per second for tc", "in bits: `40mbit`"),
    ("rate: 1bit", 29, "`rate`: `1bit` is out of range", "from `1kbit` to `100gbit`"),
    ("limit: 0", 30, "`limit`: `0` is no number of frames", "from 1 to 1000000"),
    ("jitter: 1ms", 23, "`jitter` needs a `delay` to vary", "`delay: 20ms, jitter: 2ms`"),
    ("delay: 1ms, jitter: 2ms", 35, "`jitter` is more than `delay`",
     "a frame cannot leave before it came"),
    ("distribution: normal", 23, "`distribution` needs a `jitter`", "`delay: 20ms, jitter: 2ms`"),
    ("distribution: gauss", 37, "`distribution`: `gauss` is no distribution",
     "uniform, normal, pareto, paretonormal"),
    ("reorder: 1%", 23, "`reorder` needs a `delay`",
     "frames that are reordered go at once, the others after `delay`"),
    ("delya: 1ms", 23, "unknown key `delya` in `impair`", "did you mean `delay`?"),
    ("delay: [1ms]", 30, "`delay` takes one value, not a list", ""),
    ("forward: {}, rate: 1gbit", 36, "`rate` beside a direction",
     "say it in `forward:` and in `reverse:`, or leave these two out"),
    ("forward: 1ms", 32, "`forward` is a mapping, not `1ms`", "`forward: {delay: 20ms}`"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "column", "words", "hint"), BAD)
def test_what_makes_no_sense_is_refused_at_its_place(
    text: str, column: int, words: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"links:\n  a: {{to: b, impair: {{{text}}}}}\n", "f")
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.text, problem.hint) == (2, column, words, hint)


@pytest.mark.parametrize("mode", ["generic", "native"])
@pytest.mark.parametrize("where", ["link", "defaults"])
def test_a_mode_that_cannot_impair_is_refused(mode: str, where: str) -> None:
    own, defaults = (f", mode: {mode}", "") if where == "link" else ("", f"mode: {mode}")
    text = f"{{defaults: {{{defaults}}}, links: {{a: {{to: b, impair: {{loss: 1%}}{own}}}}}}}"
    with pytest.raises(ConfigError, match=f"needs mode tc: in mode {mode} frames go past every"):
        parse(text, "f")


def test_the_same_line_turned_round_has_its_directions_turned() -> None:
    text = "links:\n  a: {to: b, impair: {forward: {loss: 1%}}}\n"
    same = f"{text}  b: {{to: a, impair: {{reverse: {{loss: 1%}}}}}}\n"
    assert len(parse(same, "f").warnings) == 1
    with pytest.raises(ConfigError, match="with other options"):
        parse(f"{text}  b: {{to: a, impair: {{forward: {{loss: 1%}}}}}}\n", "f")


def test_words_of_a_command_are_read_like_the_file() -> None:
    found = blocks.read_words(["delay=20ms", "loss={mean: 1%, burst: 5}"])
    assert found == Impairment(delay=20_000_000, loss=0.01, burst=5.0)
    with pytest.raises(ConfigError) as caught:
        blocks.read_words(["delay", "rate=1bit", "seed=1", "seed=2"])
    assert len(caught.value.problems) == 3
    with pytest.raises(ConfigError) as caught:
        blocks.read_words(["loss={mean: 1%", "seed=1"])
    (problem,) = caught.value.problems
    assert problem.text.startswith("`loss`: `{mean: 1%` is not YAML: while parsing a flow mapping")


numbers = st.fixed_dictionaries(
    {},
    optional={
        "delay": st.integers(1, impairment.LONGEST_DELAY),
        "loss": st.integers(1, 10**6).map(lambda n: n / 10**6),
        "corrupt": st.integers(1, 10**6).map(lambda n: n / 10**6),
        "rate": st.integers(1, 10**8).map(lambda n: n * 1000),
        "limit": st.integers(1, impairment.MOST_FRAMES),
        "seed": st.integers(0, impairment.LARGEST_SEED),
    },
)


@given(numbers)
def test_what_is_written_reads_the_same(values: dict[str, float]) -> None:
    one = Impairment(**values)  # type: ignore[arg-type]
    written = [f"{key}={value}" for key, value in impairment.as_written(one).items()]
    again = blocks.read_words(written)
    assert again == one or pytest.approx(again.delay, rel=1e-9) == one.delay


# --------------------------------------------------------------------------- as queues


@pytest.mark.parametrize("rate", [10**3, 10**6, 10**7, 99 * 10**6])
@pytest.mark.parametrize("mtu", [1500, 9000])
def test_below_100_mbit_two_frames_go_at_once_and_no_more(rate: int, mtu: int) -> None:
    shape = impairments.shape(Impairment(rate=rate), mtu)
    assert 2 * shape.frame <= shape.burst < 3 * (mtu + 14)
    assert shape.bucket * 64 * shape.rate / 1e9 == pytest.approx(shape.burst, rel=1e-3)


def test_everything_lost_needs_no_netem_and_all_else_but_a_rate_does() -> None:
    for one in (HOLE, HOLE._replace(delay=10**6)):
        assert wanted(one).is_hole
        assert wanted(one).netem is None
    assert wanted(RATED).netem is None
    for one in (LOSSY, Impairment(corrupt=0.1), Impairment(duplicate=0.1), Impairment(delay=1)):
        assert wanted(one).netem


@given(st.floats(0.001, 0.5), st.floats(1, 1000))
def test_bursts_have_their_mean_length_and_their_share(mean: float, burst: float) -> None:
    netem = wanted(Impairment(loss=mean, burst=burst)).netem
    assert netem is not None
    assert netem.gilbert is not None
    begins, ends = (each / (2**32 - 1) for each in netem.gilbert)
    assert 1 / ends == pytest.approx(burst, rel=1e-4)
    assert begins / (begins + ends) == pytest.approx(mean, rel=1e-3)


def test_what_waits_by_default_is_what_rate_and_delay_need() -> None:
    assert impairments.limit(Impairment(rate=10**9, delay=10**8)) == 16_666
    assert impairments.limit(Impairment(rate=10**6)) == 50
    assert impairments.limit(Impairment(rate=10**6, limit=7)) == 7
    assert impairments.limit(Impairment(delay=10**7)) == 10_000
    assert impairments.limit(Impairment(delay=60 * 10**9)) == 200_000


# --------------------------------------------------------------------------- in the kernel


@pytest.fixture
def kernel() -> Kernel:
    return Kernel("va", "vb", "vc", "vd")


def test_each_way_is_impaired_where_its_frames_leave(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(impaired(RATED, LOSSY))
    assert does(kernel, "vb", RATED)
    assert does(kernel, "va", LOSSY)
    assert keeper.state("va:vb") == "connected"
    status = keeper.reconciler.statuses["va:vb"]
    assert (status.mode, status.mode_reason) == (
        Mode.TC,
        "impair: only here do frames pass a queue",
    )


def test_nothing_is_changed_where_all_is_as_wanted_also_by_a_new_daemon(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(impaired())
    before = kernel.snapshot()
    kernel.trouble = kernel.trouble
    again = keeper.restart()
    again.reconciler.run(None, "netlink")
    assert [step.verb for step in kernel.steps] == []
    assert kernel.snapshot() == before


def test_a_changed_value_is_one_step_and_the_neighbour_has_none(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(impaired())
    kernel.trouble = kernel.trouble
    keeper.take(impaired(RATED._replace(rate=20_000_000), RATED))
    assert [(step.verb, step.ifindex) for step in kernel.steps] == [("impair", kernel.index("vb"))]


@pytest.mark.parametrize("end", ["file", "detach", "crash"])
def test_what_was_found_is_put_back(kernel: Kernel, end: str) -> None:
    before = kernel.snapshot()
    keeper = Keeper(kernel).start(impaired())
    if end == "crash":
        keeper = Keeper(kernel, keeper.book).start(wiring())
    elif end == "file":
        keeper.take(wiring())
    else:
        keeper.daemon.stop()
    assert kernel.snapshot() == before


def test_a_link_that_is_impaired_no_more_keeps_its_wire_and_loses_the_queue(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(impaired())
    keeper.take(wiring("va:vb", "vc:vd"))
    assert kernel.wired("va", "vb")
    assert kernel.get("va").root is kernel.get("vb").root is None


@pytest.mark.parametrize("at", range(14))
def test_a_crash_at_any_step_leaves_a_way_back(kernel: Kernel, at: int) -> None:
    before, book = kernel.snapshot(), Book(kernel)
    kernel.trouble = crash(at)
    with pytest.raises(Crash):
        Keeper(kernel, book).start(impaired())
    kernel.trouble = lambda *_: None
    Keeper(kernel, book).start(wiring())
    assert kernel.snapshot()[:3] == before[:3]


def test_a_queue_of_somebody_else_is_left_alone_and_named(kernel: Kernel) -> None:
    theirs = RootQdisc("fq_codel", 0x8001 << 16)
    kernel.alter("vb", root=theirs)
    keeper = Keeper(kernel).start(impaired())
    reason = keeper.reconciler.statuses["va:vb"].reason
    assert "vb has a queueing discipline of its own at the root, fq_codel 8001:" in reason
    assert "tc qdisc del dev vb root" in reason
    assert kernel.get("vb").root == theirs
    assert keeper.state("vc:vd") == "connected"
    kernel.alter("vb", root=None)
    keeper.settle()
    assert keeper.state("va:vb") == "connected"
    assert does(kernel, "vb", RATED)


def test_without_netem_the_link_fails_and_says_what_would_work(kernel: Kernel) -> None:
    kernel.has_netem = False
    keeper = Keeper(kernel).start(impaired(LOSSY))
    status = keeper.reconciler.statuses["va:vb"]
    assert str(status.state) == "failed"
    assert "sch_netem" in status.reason
    keeper.take(impaired(HOLE))
    assert keeper.state("va:vb") == "connected"
    assert does(kernel, "vb", HOLE)


def test_what_drifts_is_repaired_and_what_is_deleted_too(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(impaired())
    drifted = wanted(RATED)._replace(rate=77, frame=0)
    kernel.alter("vb", root=RootQdisc("tbf", ROOT_HANDLE, drifted))
    keeper.settle()
    assert does(kernel, "vb", RATED)
    kernel.alter("va", root=None)
    keeper.settle()
    assert does(kernel, "va", RATED)


def test_another_mtu_gives_the_queue_another_longest_frame(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(impaired())
    kernel.alter("vb", mtu=9000)
    keeper.settle()
    found = shape_at(kernel, "vb")
    assert found
    assert found.does(impairments.shape(RATED, 9000))


def test_a_start_without_a_good_file_keeps_what_is_impaired(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(impaired())
    before = kernel.snapshot()
    found = keeper.reconciler.found()
    again = Keeper(kernel, keeper.book).start(Wiring(found))
    assert kernel.snapshot() == before
    assert again.states() == {"va:vb": "connected", "vc:vd": "connected"}


def test_a_disabled_link_keeps_its_queue_until_it_goes(kernel: Kernel) -> None:
    """Nothing crosses; it need not be made anew."""
    keeper = Keeper(kernel).start(impaired())
    both = Impairments(RATED, RATED)
    keeper.take(wiring(link("va", "vb", impair=both, enabled=False), "vc:vd"))
    assert keeper.state("va:vb") == "disabled"
    assert kernel.leads("va") is None
    keeper.take(impaired())
    assert does(kernel, "vb", RATED)


def test_a_wire_of_another_mode_is_impaired_without_a_gap(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(wiring("va:vb", "vc:vd"))
    assert kernel.get("vb").mtu > 1500
    keeper.take(impaired())
    assert kernel.wired("va", "vb")
    assert kernel.get("vb").mtu == 1500
    assert does(kernel, "vb", RATED)


def test_what_it_drops_is_counted_by_reason_for_the_way_it_came() -> None:
    here, there = Counters(), Counters(impaired_loss=5, impaired_queue=7)
    counted = drop_reasons.counted(here, there)
    assert (counted["impaired_loss"], counted["impaired_queue"]) == (5, 7)
    assert drop_reasons.lost(counted) == 12
    ends = End("va", ifindex=5), End("vb", ifindex=6)
    told = drop_reasons.explained(*ends, {5: here, 6: there}, enabled=True)
    assert [(each.source, each.target, each.reason) for each in told] == [
        ("va", "vb", "impaired_queue"),
        ("va", "vb", "impaired_loss"),
    ]
