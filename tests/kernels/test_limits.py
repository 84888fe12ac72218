"""What an older kernel cannot do is told, and is what it cannot do."""

from __future__ import annotations

import json

from netns.lab import Lab, inside
from netns.service import Start

from xconnectd import paths
from xconnectd.kernel_version import kernel_version

KERNEL = kernel_version()


def test_what_the_kernel_lacks_is_what_doctor_says(lab: Lab, daemon: Start) -> None:
    stations = lab.veths("va", "vb")
    running = daemon("links:\n  va: vb\n").connected()
    findings = json.loads(running.cli("doctor", "--json").stdout)["findings"]
    said = "\n".join(each["text"] for each in findings if each["where"] == "host")

    def told(since: tuple[int, int], words: str) -> bool:
        """Whether doctor says that this kernel lacks it; it must not say so of a newer one."""
        assert (words in said) == (since > KERNEL), said
        return since > KERNEL

    with stations[0].port() as port:
        port.send(bytes(60))
    link = running.link()
    unavailable = running.status()["drop_stats_unavailable"]
    assert told((5, 12), "known by inode numbers") == inside(
        lab.host, paths.namespace_cookie
    ).startswith("inode-")
    assert told((5, 13), "dropped in the redirect") == ("Linux 5.13 is needed" in unavailable)
    assert bool(running.events("drop_stats.unavailable")) == bool(unavailable)
    told((5, 18), "no XDP fragments")
    assert 0 <= link["a"]["last_frame_age_s"] < 30
    told((6, 3), "drivers do not report what they can do")


def test_native_between_containers_is_refused_with_the_kernels_reason(
    lab: Lab, daemon: Start
) -> None:
    """Their far ends are as they were made, so nothing would cross in any kernel."""
    for end in ("va", "vb"):
        lab.veth(end)
    running = daemon("links:\n  va: {to: vb, mode: native}\n")
    reason = running.wait_state("va", "vb", "failed")["reason"]
    assert ("does not tell" in reason) == (KERNEL < (6, 3)), reason
    assert ("ethtool -K" in reason) == (KERNEL >= (6, 3)), reason
