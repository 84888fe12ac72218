"""Numbers of rtnetlink, by the names they have in the kernel's include/uapi/linux."""

from __future__ import annotations

from typing import Final

# netlink.h
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
NETLINK_DROP_MEMBERSHIP: Final = 2
NETLINK_LISTEN_ALL_NSID: Final = 8
NETLINK_CAP_ACK: Final = 10
NETLINK_EXT_ACK: Final = 11
NETLINK_GET_STRICT_CHK: Final = 12
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSGERR_ATTR_MSG: Final = 1
NLM_F_MULTI: Final = 0x2
NLM_F_ACK: Final = 0x4
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_ACK_TLVS: Final = 0x200
NLA_TYPE_MASK: Final = 0x3FFF
NLA_F_NESTED: Final = 0x8000

# rtnetlink.h
RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_SETLINK: Final = 19
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30
RTM_NEWQDISC: Final = 36
RTM_DELQDISC: Final = 37
RTM_GETQDISC: Final = 38
RTM_NEWTFILTER: Final = 44
RTM_DELTFILTER: Final = 45
RTM_GETTFILTER: Final = 46
RTM_NEWNSID: Final = 88
RTM_GETNSID: Final = 90
RTM_GETSTATS: Final = 94

RTNLGRP_LINK: Final = 1
RTNLGRP_TC: Final = 4
RTNLGRP_IPV4_IFADDR: Final = 5
RTNLGRP_IPV4_ROUTE: Final = 7
RTNLGRP_IPV6_IFADDR: Final = 9
RTNLGRP_IPV6_ROUTE: Final = 11

RTA_DST: Final = 1
RTA_OIF: Final = 4
RTA_MULTIPATH: Final = 9
RTA_TABLE: Final = 15
RTN_UNICAST: Final = 1
RTPROT_KERNEL: Final = 2
RTPROT_RA: Final = 9
RT_TABLE_MAIN: Final = 254
TCA_KIND: Final = 1
TCA_OPTIONS: Final = 2
TCA_STATS2: Final = 7
TCA_STATS_QUEUE: Final = 3
RTEXT_FILTER_SKIP_STATS: Final = 8

# if.h, if_arp.h
IFF_UP: Final = 0x1
IFF_PROMISC: Final = 0x100
ARPHRD_ETHER: Final = 1
LOOPBACK_IFINDEX: Final = 1
"""Of lo in every namespace; include/net/flow.h."""

# if_link.h, if_tun.h
IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_LINK: Final = 5
IFLA_MASTER: Final = 10
IFLA_LINKINFO: Final = 18
IFLA_AF_SPEC: Final = 26
IFLA_CARRIER: Final = 33
IFLA_LINK_NETNSID: Final = 37
IFLA_XDP: Final = 43
IFLA_NEW_NETNSID: Final = 45
IFLA_NEW_IFINDEX: Final = 49
IFLA_MAX_MTU: Final = 51
IFLA_PROP_LIST: Final = 52
IFLA_INFO_KIND: Final = 1
IFLA_INFO_DATA: Final = 2
IFLA_INFO_SLAVE_KIND: Final = 4
IFLA_GROUP: Final = 27
IFLA_NET_NS_FD: Final = 28
VETH_INFO_PEER: Final = 1
"""In IFLA_INFO_DATA (linux/veth.h); a struct ifinfomsg and attributes of the other end."""
IFLA_INET6_ADDR_GEN_MODE: Final = 8
IFLA_MACVLAN_MODE: Final = 1
IFLA_TUN_TYPE: Final = 3
IFLA_VXLAN_ID: Final = 1
IFLA_VXLAN_GROUP: Final = 2
IFLA_VXLAN_LINK: Final = 3
IFLA_VXLAN_TTL: Final = 5
IFLA_VXLAN_LEARNING: Final = 7
IFLA_VXLAN_PORT: Final = 15
IFLA_VXLAN_GROUP6: Final = 16
IFLA_VXLAN_DF: Final = 29
IFLA_XDP_DRV_PROG_ID: Final = 5
IFLA_XDP_SKB_PROG_ID: Final = 6
IFLA_XDP_HW_PROG_ID: Final = 7
IFLA_STATS_LINK_64: Final = 1
"""As an attribute; in a filter mask it is bit 0, which is 1 too."""
XDP_FLAGS_UPDATE_IF_NOEXIST: Final = 0x1
XDP_FLAGS_SKB_MODE: Final = 0x2
XDP_FLAGS_DRV_MODE: Final = 0x4
XDP_FLAGS_REPLACE: Final = 0x10

# if_addr.h, neighbour.h, net_namespace.h; IFA_PROTO is there since 5.18
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
IFA_FLAGS: Final = 8
IFA_PROTO: Final = 11
IFA_F_TEMPORARY: Final = 0x1
IFA_F_PERMANENT: Final = 0x80
IFA_F_MANAGETEMPADDR: Final = 0x100
IFAPROT_KERNEL_RA: Final = 2
NUD_NOARP: Final = 0x40
NUD_PERMANENT: Final = 0x80
NETNSA_NSID: Final = 1
NETNSA_NSID_NOT_ASSIGNED: Final = 0xFFFFFFFF

# pkt_sched.h, pkt_cls.h
TC_H_CLSACT: Final = 0xFFFFFFF1
TC_H_MAJ_MASK: Final = 0xFFFF0000
TC_H_MIN_INGRESS: Final = 0xFFF2
TC_H_MIN_EGRESS: Final = 0xFFF3
TCA_BPF_NAME: Final = 7
TCA_BPF_ID: Final = 11
TCA_BPF_FLAG_ACT_DIRECT: Final = 1
