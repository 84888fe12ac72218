"""Commands where something is missing around them: a server that answers, a capability."""

from __future__ import annotations

import sys
import time

import pytest

from .lab import REPO, Lab
from .service import Daemon, Start
from .test_hostile_files import dead_server
from .traffic import wired


@pytest.mark.parametrize(
    "line", ["try {0}", "plan {0}", "check {0}", "link add -c {0} vc vd", "link disable va -c {0}"]
)
def test_a_file_on_a_dead_mount_is_not_waited_for(lab: Lab, daemon: Start, line: str) -> None:
    lab.veths("va", "vb")
    running = daemon({"va": "vb"})
    with dead_server(lab) as dead:
        began = time.monotonic()
        done = running.cli(*line.format(dead / "draft.yaml").split())
        assert time.monotonic() - began < 20
    assert f"the file system at {dead} does not answer" in done.stdout + done.stderr
    assert "Errno" not in done.stderr
    assert done.returncode in (1, 78)


def test_who_lacks_a_capability_takes_no_wires_over(lab: Lab) -> None:
    """Pins can be opened without any: it has to be asked."""
    a, b = lab.veths("va", "vb")
    running = Daemon(lab, {"va": "vb"}).start()
    running.kill()
    xconnectd = (
        *("env", f"PYTHONPATH={REPO}", f"XCONNECTD_STATE_DIR={running.state}"),
        *(sys.executable, "-m", "xconnectd", "run", "-c", str(running.config)),
    )
    for held, missing in (
        ("", "CAP_BPF, CAP_NET_ADMIN"),
        (",+net_admin", "CAP_BPF"),
        (",+bpf", "CAP_NET_ADMIN"),
    ):
        powerless = ("setpriv", f"--bounding-set=-all,+dac_override{held}", "--inh-caps=-all")
        done = lab.run(*powerless, *xconnectd, check=False)
        assert done.returncode == 3, done.stderr
        assert f"cannot start: {missing} is missing: taking over" in done.stderr
        assert wired(a, b), "what stands goes on"
    running.start()
