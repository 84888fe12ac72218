"""Impairments on the real kernel: the queues of the ends, and that all is put back."""

from __future__ import annotations

from .lab import Lab, poll
from .service import Start
from .traffic import lossless, passes


def impaired(**values: object) -> dict[str, object]:
    return {"va": {"to": "vb", "impair": values}}


def qdiscs(lab: Lab, end: str) -> str:
    return lab.tc(f"qdisc show dev {end}")


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
    assert all(daemon.link()[end]["carrier"] for end in ("a", "b"))


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
