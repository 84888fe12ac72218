"""Impairments on the real kernel: the queues of the ends, and that all is put back."""

from __future__ import annotations

import time

from .lab import Lab, poll
from .service import Start
from .traffic import Wire, lossless, passes


def impaired(**values: object) -> dict[str, object]:
    return {"va": {"to": "vb", "impair": values}}


def qdiscs(lab: Lab, end: str) -> str:
    return lab.tc(f"qdisc show dev {end}")


def crosses_none(sender: Wire, receiver: Wire, count: int) -> None:
    receiver.drain()
    for _ in range(count):
        sender.send(b"\xff" * 12 + b"\x88\xb5" + bytes(50))
    assert not any(frame[:12] == b"\xff" * 12 for frame in receiver.drain())


def test_a_rate_is_a_token_bucket_that_changes_hot_and_goes(lab: Lab, shared: Start) -> None:
    lab.veths("va", "vb")
    before = lab.settled()
    daemon = shared(impaired(rate="10mbit")).connected()
    assert daemon.link()["mode"] == "tc"
    assert "tbf 7863: root" in qdiscs(lab, "va")
    assert "rate 10Mbit" in qdiscs(lab, "vb")
    daemon.write(impaired(forward={"rate": "20mbit"}))
    poll(lambda: "rate 20Mbit" in qdiscs(lab, "vb"))
    poll(lambda: "tbf" not in qdiscs(lab, "va"))
    daemon.write({})
    lab.assert_as_found(before)


def test_a_black_hole_has_a_carrier_and_needs_no_module(lab: Lab, shared: Start) -> None:
    va, vb = lab.veths("va", "vb")
    daemon = shared(impaired(forward={"loss": "100%"})).connected()
    with va.port() as a, vb.port() as b:
        assert not passes(a, b)
        assert passes(b, a)
        before = daemon.link()["a"]["dropped"]["impaired_loss"]
        crosses_none(a, b, 100)
        assert daemon.link()["a"]["dropped"]["impaired_loss"] - before == 100
    assert all(daemon.link()[end]["carrier"] for end in ("a", "b"))


def test_what_finds_the_queue_full_is_counted(lab: Lab, shared: Start) -> None:
    """A bucket of two frames, a queue of ten, and then one each 12 seconds."""
    va, vb = lab.veths("va", "vb")
    daemon = shared(impaired(forward={"rate": "1kbit", "limit": 10})).connected()
    with va.port() as a, vb.port() as b:
        for _ in range(100):
            a.send(b"\xff" * 12 + b"\x88\xb5" + bytes(1500))
        poll(lambda: daemon.link()["a"]["dropped"]["impaired_queue"] >= 88)
        assert len(b.drain()) == 2
    link = daemon.link()
    assert link["a"]["dropped"]["impaired_queue"] == 88
    assert link["b"]["dropped"]["impaired_queue"] == link["a"]["dropped"]["impaired_loss"] == 0
    assert [each["reason"] for each in link["drops"]] == ["impaired_queue"]


def test_a_change_loses_no_frame_here_or_beside(lab: Lab, shared: Start) -> None:
    va, vb, vc, vd = lab.veths("va", "vb", "vc", "vd")
    beside = {"vc": "vd"}
    daemon = shared(impaired(rate="100mbit") | beside).connected().connected("vc", "vd")
    with lossless(va, vb), lossless(vc, vd):
        for rate in ("50mbit", "200mbit", "80mbit"):
            daemon.write(impaired(rate=rate) | beside)
            poll(lambda rate=rate: f"rate {rate[:-4]}Mbit" in qdiscs(lab, "vb"))


def test_a_queue_of_somebody_else_is_left_alone(lab: Lab, shared: Start) -> None:
    lab.veths("va", "vb")
    lab.tc("qdisc add dev vb root handle 5: tbf rate 1mbit burst 5000 limit 5000")
    daemon = shared(impaired(rate="10mbit"))
    reason = daemon.wait_state("va", "vb", "failed")["reason"]
    assert "at the root, tbf 5:" in reason
    assert "tbf 5: root" in qdiscs(lab, "vb")
    lab.tc("qdisc del dev vb root")
    daemon.connected()
    assert "tbf 7863: root" in qdiscs(lab, "vb")


def test_without_netem_a_link_fails_and_says_what_would_work(lab: Lab, shared: Start) -> None:
    lab.veths("va", "vb")
    before = lab.settled()
    daemon = shared(impaired(delay="1ms"))
    reason = daemon.wait_state("va", "vb", "failed")["reason"]
    assert "no sch_netem" in reason
    assert "rate" in reason
    daemon.write({})
    lab.assert_as_found(before)


def test_a_killed_daemon_leaves_the_queue_and_the_next_one_puts_it_back(
    lab: Lab, daemon: Start
) -> None:
    lab.veths("va", "vb")
    before = lab.settled()
    first = daemon(impaired(rate="10mbit")).connected()
    first.kill()
    assert "tbf 7863: root" in qdiscs(lab, "vb")
    first.write({})
    first.start()
    lab.assert_as_found(before)


def test_a_command_impairs_for_a_while_over_a_crash(lab: Lab, shared: Start) -> None:
    lab.veths("va", "vb")
    daemon = shared(impaired(rate="10mbit")).connected()
    done = daemon.cli("impair", "va", "rate=5mbit", "--forward", "--for", "4s")
    assert done.stdout == "va → vb: rate 5mbit\n", done.stderr
    assert "rate 5Mbit" in qdiscs(lab, "vb")
    assert "rate 10Mbit" in qdiscs(lab, "va")
    daemon.crash()
    assert "rate 5Mbit" in qdiscs(lab, "vb")
    impair = daemon.link()["impair"]
    assert (impair["passing"], impair["forward"]["rate"]) == (["forward"], "5mbit")
    assert 0 < impair["ends_in_s"] <= 4
    assert "impaired va → vb: rate 5mbit" in daemon.cli("status", "-v").stdout
    poll(lambda: "rate 10Mbit" in qdiscs(lab, "vb"))
    daemon.wait_event("impair.ended", link="va:vb")


def test_a_command_that_cannot_be_done_changes_nothing(lab: Lab, shared: Start) -> None:
    """This kernel has no netem."""
    lab.veths("va", "vb")
    daemon = shared({"va": "vb"}).connected()
    before = qdiscs(lab, "vb")
    done = daemon.cli("impair", "va", "delay=20ms")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no sch_netem" in done.stderr
    assert daemon.link()["state"] == "connected"
    assert qdiscs(lab, "vb") == before
    assert daemon.cli("impair", "va", "delay=20").returncode == 2
    assert daemon.cli("impair", "va", "rate=1mbit").returncode == 0
    assert daemon.cli("impair", "va", "--clear").returncode == 0
    assert qdiscs(lab, "vb") == before


def test_a_hundred_changes_a_second_end_right(lab: Lab, shared: Start) -> None:
    """And while they last, nothing is lost beside."""
    va, vb, vc, vd = lab.veths("va", "vb", "vc", "vd")
    beside = {"vc": "vd"}
    daemon = shared(impaired(rate="100mbit") | beside).connected().connected("vc", "vd")
    with lossless(vc, vd), lossless(va, vb):
        begin = time.monotonic()
        for number in range(1, 301):
            daemon.write(impaired(rate=f"{100 + number}mbit") | beside)
            time.sleep(max(0.0, begin + number / 100 - time.monotonic()))
        poll(lambda: "rate 400Mbit" in qdiscs(lab, "va") + qdiscs(lab, "vb"))
    assert "rate 400Mbit" in qdiscs(lab, "va")
    assert "rate 400Mbit" in qdiscs(lab, "vb")
    assert daemon.ask("status")["links"][0]["state"] == "connected"
    assert not daemon.events("drift.repaired")
