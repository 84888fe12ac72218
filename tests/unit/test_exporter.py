"""Who asks for metrics when the daemon cannot look."""

from __future__ import annotations

import socket
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from xconnectd.daemon.exporter import Exporter
from xconnectd.errors import DataplaneError
from xconnectd.events import logger
from xconnectd.model import Listen
from xconnectd.netlink.transport import NetlinkError

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "refusal", [NetlinkError(105, "no buffer space"), DataplaneError("open", "nothing is loaded")]
)
def test_a_look_that_is_refused_costs_the_answer_alone(tmp_path: Path, refusal: Exception) -> None:
    def look() -> Any:
        raise refusal

    rings: SimpleQueue[None] = SimpleQueue()
    exporter = Exporter(look, lambda: rings.put(None), logger())
    path = tmp_path / "metrics.sock"
    exporter.follow(Listen(path=str(path)))
    try:
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(str(path))
                client.sendall(REQUEST)
                rings.get(timeout=60)
                exporter.answer()
                with client.makefile("rb") as answer:
                    assert b" 503 " in answer.readline()
    finally:
        exporter.close()
