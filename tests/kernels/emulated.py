"""A pytest plugin for a guest without KVM, and for kernels that the tests were not written on.

It stretches what the tests wait for, since everything takes many times as long, and tells them
what an older kernel cannot do. It prints an ``@outcome`` line for each, which ``run`` gathers,
and a failure at once: the guest may not live to its end. Load it with ``-p``, so that it comes
before any test is imported.
"""

from __future__ import annotations

import errno
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
from netns import lab, traffic

from xconnectd import paths
from xconnectd.kernel_version import kernel_version

SLOWER: Final = 6
KERNEL: Final = kernel_version()
TAPS_TAKE_UDP: Final = KERNEL >= (6, 2)

LIMITS: Final = {
    "test_tcp_and_udp_of_a_guest[1500-virtio]": (
        TAPS_TAKE_UDP,
        "before Linux 6.2 a tap takes no UDP segments: it goes by tc, never in generic mode",
    ),
    "test_native_frames_byte_for_byte": (
        KERNEL >= (6, 3),
        "before Linux 6.3 no veth tells what it can do: mode: native is refused",
    ),
    "[egress_down-": (
        KERNEL >= (5, 13),
        "before Linux 5.13 losses at the redirect are not counted",
    ),
    "test_two_capabilities_do": (
        KERNEL >= (5, 18),
        "before Linux 5.18 the verifier wants CAP_PERFMON",
    ),
    "test_the_age_of_the_last_frame": (
        KERNEL >= (5, 18),
        "before Linux 5.18 nothing tells when a frame came in generic mode",
    ),
}
"""Part of a test's name: whether the kernel can do what it is about, and what it cannot."""

_poll = lab.poll
_exchange = traffic.exchange
_passes = traffic.passes
_transfer = traffic.transfer
_offload = traffic.Tap.offload
_load = lab._load


def patient(
    condition: Callable[[], Any], timeout: float = 5.0, what: str = "", interval: float = 0.02
) -> Any:
    return _poll(condition, timeout * SLOWER, what, interval)


def exchange(
    sender: traffic.Wire, receiver: traffic.Wire, frames: Sequence[bytes], timeout: float = 2.0
) -> traffic.Delivery:
    return _exchange(sender, receiver, frames, timeout * SLOWER if timeout >= 2 else timeout)


def passes(sender: traffic.Wire, receiver: traffic.Wire, timeout: float = 0.1) -> bool:
    return _passes(sender, receiver, timeout * SLOWER)


def transfer(client: lab.Station, server: lab.Station, **options: Any) -> float:
    """Whether the bytes arrive; how fast says nothing here."""
    _transfer(client, server, **{**options, "size": 1 << 20, "timeout": 60})
    return 1000.0


def cookie(namespace: str) -> str:
    """As the daemon names it: old kernels have no cookie to ask for."""
    return lab.inside(namespace, paths.namespace_cookie)


def load(*program: Any) -> None:
    """Before Linux 5.11 RLIMIT_MEMLOCK limits BPF too; what is under test sees to that itself."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (unlimited, unlimited))
    try:
        _load(*program)
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def offload(self: traffic.Tap, flags: int) -> None:
    """A QEMU that asks for UDP segmentation and is refused does without."""
    try:
        _offload(self, flags)
    except OSError as error:
        if error.errno != errno.EINVAL or TAPS_TAKE_UDP:
            raise
        _offload(self, flags & traffic.OLD_OFFLOADS)


lab.poll = patient
lab._load = load
traffic.exchange, traffic.passes = exchange, passes
traffic.transfer = transfer  # type: ignore[assignment]
lab.cookie = cookie  # type: ignore[assignment]
traffic.Tap.offload = offload  # type: ignore[method-assign]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if (wire := sys.modules.get("netns.test_wire")) and not TAPS_TAKE_UDP:
        wire.LINKS["tap"] = (*wire.LINKS["tap"][:2], "tc")
    for item in items:
        for part, (able, reason) in LIMITS.items():
            if part in item.nodeid and not able:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        outcome = "failed" if report.failed else report.outcome
        print(f"\n@{outcome} {report.nodeid.replace(' ', '-')} {report.duration:.0f}", flush=True)
    if report.failed:
        print(report.longreprtext[-6000:], flush=True)
