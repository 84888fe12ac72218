"""What a host with another libbpf is told."""

from __future__ import annotations

import _ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("question", ["version()", "possible_cpus()"])
def test_a_libbpf_that_is_too_old_is_an_oserror(tmp_path: Path, question: str) -> None:
    """Any library without its functions stands for one."""
    (tmp_path / "libbpf.so.1").symlink_to(_ctypes.__file__)
    program = f"""
from xconnectd.dataplane import libbpf
try:
    libbpf.{question}
except OSError as error:
    print(error.errno, error)
"""
    done = subprocess.run(
        (sys.executable, "-c", program),
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("None libbpf is older than 0.6"), done.stderr
