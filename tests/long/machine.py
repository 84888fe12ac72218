"""A real virtual machine: QEMU without KVM, Debian's kernel, and busybox that tells its carriers.

The kernel is unpacked into ``CACHE`` and nothing is installed; it is looked for again after a
week. The guest prints ``@DRIVER CARRIER`` on its serial console whenever a NIC's carrier changed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from netns.lab import NETNS, poll, run

CACHE: Final = Path("/var/cache/xconnectd-test/machine")
DRIVERS: Final = {"virtio-net-pci": "virtio_net", "e1000": "e1000", "e1000e": "e1000e"}
"""By what QEMU calls a NIC, its driver in the guest."""
_MODULES: Final = ("virtio_pci", *DRIVERS.values())
_WEEK: Final = 7 * 86_400

_INIT: Final = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for module in {modules}; do insmod /modules/$module; done
cd /sys/class/net
for nic in eth*; do ip link set $nic up; done
echo @ready
while usleep 10000; do
    for nic in eth*; do
        read -r carrier <$nic/carrier
        eval "known=\\$known_$nic"
        [ "$carrier" = "$known" ] && continue
        eval "known_$nic=$carrier"
        driver=$(readlink $nic/device/driver)
        echo "@${{driver##*/}} $carrier"
    done
done
"""


class Machine:
    """One that can be started and killed again and again. ``nics`` is a model by netdev."""

    def __init__(
        self,
        directory: Path,
        nics: Mapping[str, str],
        options: Sequence[str],
        *,
        namespace: str = "",
        taps: bool = False,
    ) -> None:
        self._console = directory / "console"
        self._complaints = directory / "complaints"
        self._nics = nics
        kernel, initrd = boot_files()
        self._command = [
            *(("nsenter", f"--net={NETNS / namespace}") if namespace else ()),
            *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max,-cx16", "-m", "256"),
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-serial", f"file:{self._console}", "-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", "console=ttyS0 quiet panic=-1 net.ifnames=0"),
        ]
        for number, (netdev, model) in enumerate(nics.items()):
            lower = f"tap,id={netdev},ifname={netdev},script=no,downscript=no"
            hub = f"hubport,id={netdev},hubid={number}"
            self._command += ["-netdev", lower if taps else hub]
            self._command += ["-device", f"{model},netdev={netdev}"]
        self._command += options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns at once; ``told`` begins anew."""
        self._console.unlink(missing_ok=True)
        with self._complaints.open("w") as complaints:
            self._process = subprocess.Popen(self._command, stderr=complaints)

    def wait_until_ready(self) -> None:
        poll(self._is_ready, 300, "the guest is up")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._complaints.read_text()
        return "@ready" in self._lines()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def told(self, netdev: str) -> list[bool]:
        """Each carrier that the guest has seen at this NIC since its start."""
        mark = f"@{DRIVERS[self._nics[netdev]]} "
        return [line.endswith("1") for line in self._lines() if line.startswith(mark)]

    def wait_for(self, netdev: str, carrier: bool, timeout: float = 60.0) -> float:
        """Seconds until the guest sees it so."""
        start = time.monotonic()
        what = f"{netdev} has {'a' if carrier else 'no'} carrier in the guest"
        poll(lambda: self.told(netdev)[-1:] == [carrier], timeout, what)
        return time.monotonic() - start

    def _lines(self) -> list[str]:
        """Whole ones only."""
        try:
            text = self._console.read_text(errors="replace")
        except FileNotFoundError:
            return []
        return [line.strip() for line in text.splitlines(keepends=True) if line.endswith("\n")]


def boot_files() -> tuple[Path, Path]:
    """Kernel and initrd; made once a week. Not Debian's cloud kernel, which lacks e1000."""
    kernel, initrd = CACHE / "vmlinuz", CACHE / "initrd"
    if not initrd.exists() or time.time() - initrd.stat().st_mtime > _WEEK:
        shutil.rmtree(CACHE, ignore_errors=True)
        CACHE.mkdir(parents=True)
        tree = CACHE / "tree"
        _unpack_kernel(tree)
        shutil.copy(next((tree / "boot").glob("vmlinuz-*")), kernel)
        _make_initrd(tree, CACHE / "root", initrd)
    return kernel, initrd


def _unpack_kernel(tree: Path) -> None:
    depends = run("apt-cache", "depends", "linux-image-amd64").stdout.split()
    package = next(word for word in depends if re.match("linux-image-[0-9]", word))
    run("apt-get", "-qq", "download", package, cwd=CACHE)
    run("dpkg-deb", "-x", str(next(CACHE.glob("*.deb"))), str(tree))


def _make_initrd(tree: Path, root: Path, initrd: Path) -> None:
    version = next((tree / "lib/modules").iterdir()).name
    run("depmod", "-b", str(tree), version)
    shown = run("modprobe", "-d", str(tree), "-S", version, "--show-depends", "-a", *_MODULES)
    lines = shown.stdout.splitlines()
    paths = dict.fromkeys(Path(line.split()[1]) for line in lines if line.startswith("insmod"))
    for directory in ("bin", "modules", "proc", "sys", "dev"):
        (root / directory).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin")
    for path in paths:
        shutil.copy(path, root / "modules")
    init = root / "init"
    init.write_text(_INIT.format(modules=" ".join(path.name for path in paths)))
    init.chmod(0o755)
    packed = run("sh", "-c", f"find . | cpio -o -H newc --quiet >{initrd}.new", cwd=root)
    assert not packed.stderr
    Path(f"{initrd}.new").rename(initrd)
