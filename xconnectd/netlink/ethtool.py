"""What only a driver can tell or change: its name, offload features, XDP features.

Of the ends of links only taps and NICs are asked. It imports pyroute2's ethtool and generic
netlink, a tenth of the daemon's start, so others import it when it is first needed.
Every refusal is an OSError.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from xconnectd.lazy_imports import without_init
from xconnectd.model import XdpFeature
from xconnectd.netlink.transport import raw, text

with without_init("pyroute2"):
    from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool, NotSupportedError
    from pyroute2.netlink import NLM_F_REQUEST, genlmsg
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.generic import GenericNetlinkSocket

_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GDRVINFO: Final = 3
_NETDEV_CMD_DEV_GET: Final = 1


def driver(name: str) -> str:
    """The driver's name as ``ethtool -i`` prints it; empty where there is none."""
    info = array.array("B", struct.pack("=I192x", _ETHTOOL_GDRVINFO))
    request = struct.pack("@16sP16x", raw(name), info.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, request)
        except OSError:
            return ""
    return text(info.tobytes()[4:36].split(b"\0")[0])


def features(name: str) -> frozenset[str]:
    """The ethtool features that are active and could be switched off; empty without ethtool."""
    try:
        with _ethtool(name) as ethtool:
            found = ethtool.get_features()
    except OSError:  # also one that is gone meanwhile
        return frozenset()
    return frozenset(
        feature
        for feature in found.keys()  # noqa: SIM118 (no mapping)
        if found.is_active(feature) and found.is_available(feature)
    )


def change_feature(name: str, feature: str, *, on: bool) -> None:
    """Switches an ethtool feature. OSError where the driver refuses."""
    with _ethtool(name) as ethtool:
        wanted = ethtool.get_features()
        wanted.set_value(feature, on)
        ethtool.set_features(wanted)


@contextmanager
def _ethtool(name: str) -> Iterator[IoctlEthtool]:
    with closing(IoctlEthtool()) as ethtool:
        try:
            ethtool.change_ifname(name)
            yield ethtool
        except NotSupportedError as error:
            raise OSError(errno.EOPNOTSUPP, str(error)) from error
        except EthtoolError as error:
            raise OSError(errno.EINVAL, str(error)) from error
        except UnicodeEncodeError as error:  # pyroute2 asks for names in UTF-8 only
            raise OSError(errno.EILSEQ, "its name is no UTF-8") from error


class _netdev(genlmsg):  # type: ignore[misc]  # noqa: N801
    """NETDEV_CMD_DEV_GET of the generic netlink family ``netdev`` (linux/netdev.h)."""

    prefix = "NETDEV_A_DEV_"
    nla_map = (
        ("NETDEV_A_DEV_PAD_0", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
        ("NETDEV_A_DEV_XDP_ZC_MAX_SEGS", "uint32"),
    )


def xdp_features(ifindex: int) -> XdpFeature | None:
    """What the driver says it can do; None before kernel 6.3, which has no netdev family."""
    request = _netdev()
    request["cmd"] = _NETDEV_CMD_DEV_GET
    request["version"] = 1
    request["attrs"] = [("NETDEV_A_DEV_IFINDEX", ifindex)]
    try:
        with closing(GenericNetlinkSocket()) as netlink:
            netlink.bind("netdev", _netdev)
            answer = netlink.nlm_request(request, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST)
            return XdpFeature(next(iter(answer)).get_attr("NETDEV_A_DEV_XDP_FEATURES"))
    except (NetlinkError, OSError):
        return None
