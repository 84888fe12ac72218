"""`make demo`: its story comes true, and it leaves nothing behind, interrupted or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
LAB = f"xcdemo{os.getpid()}"


@pytest.fixture
def demo() -> Iterator[subprocess.Popen[str]]:
    """The running demo, with the xconnectd that lies beside the Python of these tests."""
    environment = {
        **os.environ,
        "DEMO_LAB": LAB,
        "XCONNECTD": str(Path(sys.executable).with_name("xconnectd")),
    }
    with subprocess.Popen(
        [REPO / "tests" / "demo"],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        yield process
        process.terminate()


def leftovers() -> list[Path]:
    return [*Path("/run/netns").glob(f"{LAB}-*"), *Path("/tmp").glob(f"{LAB}.*")]


def test_the_demo_tells_its_whole_story(demo: subprocess.Popen[str]) -> None:
    story, _ = demo.communicate(timeout=300)
    assert demo.returncode == 0, story
    assert "every setting is as it was found" in story
    assert leftovers() == []


def test_an_interrupted_demo_cleans_up(demo: subprocess.Popen[str]) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("3."):  # the daemon runs, and traffic is about to
            demo.send_signal(signal.SIGINT)
            break
    demo.communicate(timeout=300)
    assert demo.returncode == 130
    assert leftovers() == []
