"""What the README tells a newcomer to type is typed, as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.pages import commands, section

from .lab import REPO, Lab, run

README = (REPO / "README.md").read_text()

# A machine of its own: where namespaces are named, and the words that a test has no need of.
PROLOGUE = """
set -euo pipefail
mount -t tmpfs tmpfs /run/netns
mkdir bin
printf '#!/bin/sh\\nexec "$@"\\n' >bin/sudo
chmod +x bin/sudo
ln -s {xconnectd} bin/xconnectd
export PATH=$PWD/bin:$PATH
trap 'kill $(jobs -p); wait' EXIT
"""


def test_the_first_wire_and_the_dailycommands(lab: Lab, tmp_path: Path) -> None:
    first, daily = (
        section(README, "Your own first wire"),
        section(README, "The five daily commands"),
    )
    wire = re.search(r"```yaml\n(.*?)```", first, re.DOTALL)
    assert wire
    (tmp_path / "wire.yaml").write_text(wire[1])
    *asked, capture = commands(daily)
    prologue = PROLOGUE.format(xconnectd=Path(sys.executable).with_name("xconnectd"))
    ping = "ip netns exec leaf1 ping -i 0.05 198.51.100.2 >/dev/null & "
    capture = f"{ping} timeout --signal=INT 2 {capture} || true"
    story = "\n".join((prologue, *commands(first), *asked, capture))
    done = run(
        "unshare",
        "--mount",
        "timeout",
        "100",
        "bash",
        "-c",
        story,
        namespace=lab.host,
        cwd=tmp_path,
    )
    for seen in ("wire.yaml: good", "3 received, 0% packet loss", "connected"):
        assert seen in done.stdout, done.stdout
    assert "leaf1-eth1 → spine1-eth1" in done.stdout
