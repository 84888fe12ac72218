"""``link`` edits the file of a running daemon, and the wire follows."""

from __future__ import annotations

from .lab import Lab, Station, poll
from .service import Daemon
from .traffic import passes


def test_a_wire_is_moved_on_trial_and_for_good(lab: Lab) -> None:
    va, vb, vc = lab.veths("va", "vb", "vc")
    daemon = Daemon(lab, "links:\n  va: vb  # the uplink\n").start()
    link = ("link", "move", "-c", str(daemon.config))

    def reaches(station: Station) -> bool:
        with va.port() as here, station.port() as there:
            return passes(here, there)

    assert reaches(vb)
    refused = daemon.cli(*link, "vb", "vc", "--try", "30", typed="n\n")
    assert refused.returncode == 1
    assert "reverted to the previous wiring" in refused.stdout
    poll(lambda: reaches(vb), what="the wire is back")
    kept = daemon.cli(*link, "vb", "vc", "--try", "30", typed="y\n")
    assert kept.returncode == 0, kept.stderr
    assert daemon.config.read_text() == "links:\n  va: vc  # the uplink\n"
    assert reaches(vc)
    assert daemon.cli("link", "disable", "va", "-c", str(daemon.config)).returncode == 0
    poll(lambda: not reaches(vc), what="the wire is cut")
