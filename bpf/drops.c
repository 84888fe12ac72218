// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Why frames are lost at the redirect: listeners at the kernel's XDP tracepoints, which say nothing
 * unless something is lost. They see the whole machine and pick what came by our own maps.
 */
#include <linux/types.h>

enum map {
	DROPS = 1, /* LRU_HASH: ingress ifindex -> struct drops */
	WATCHED,   /* HASH: the id of a DEVMAP of ours -> anything */
};

/* Numbers of fields are offsets in bytes: they differ from kernel to kernel. */
enum constant {
	NAMESPACE = 1, /* the inode of our network namespace */
	DEV_IFINDEX,
	DEV_NET,
	NET_INUM,
};

#define MAP(number)	 ((void *)bpf_pseudo_fd(1, (number)))
#define CONSTANT(number) ((u64)bpf_pseudo_fd(15, (number)))

#define __always_inline inline __attribute__((always_inline))

/* Frames, by what the kernel said of them. */
struct drops {
	u64 mtu_exceeded;     /* EMSGSIZE: longer than the target's MTU allows */
	u64 egress_down;      /* ENETDOWN: the target is admin-down or has no carrier */
	u64 xmit_unsupported; /* EOPNOTSUPP: the target's driver takes no redirected frames */
	u64 other;
	u64 driver_drop; /* native mode: the target's far end is down, or its queue full */
};

/* From asm-generic/errno.h. */
#define EMSGSIZE   90
#define EOPNOTSUPP 95
#define ENETDOWN   100

static __always_inline struct drops *drops_of(u32 ingress)
{
	struct drops *drops = bpf_map_lookup_elem_((uintptr_t)MAP(DROPS), &ingress);
	struct drops none = {};

	if (drops)
		return drops;
	bpf_map_update_elem_((uintptr_t)MAP(DROPS), &ingress, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem_((uintptr_t)MAP(DROPS), &ingress);
}

/* xdp_redirect_err(dev, program, target, error, map type, map id, key), so since Linux 5.13. */
int redirect_failed(u64 *arguments)
{
	int error = -(int)arguments[3];
	u32 map = arguments[5];
	struct drops *drops;

	if (!bpf_map_lookup_elem_((uintptr_t)MAP(WATCHED), &map))
		return 0;
	drops = drops_of(arguments[6]);
	if (!drops)
		return 0;
	if (error == EMSGSIZE)
		__sync_fetch_and_add(&drops->mtu_exceeded, 1);
	else if (error == ENETDOWN)
		__sync_fetch_and_add(&drops->egress_down, 1);
	else if (error == EOPNOTSUPP)
		__sync_fetch_and_add(&drops->xmit_unsupported, 1);
	else
		__sync_fetch_and_add(&drops->other, 1);
	return 0;
}

static __always_inline u32 word_at(u64 address)
{
	u32 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (void *)address);
	return word;
}

static __always_inline bool is_ours(u64 dev)
{
	u64 net = 0;

	bpf_probe_read_kernel(&net, sizeof(net), (void *)(dev + CONSTANT(DEV_NET)));
	return word_at(net + CONSTANT(NET_INUM)) == (u32)CONSTANT(NAMESPACE);
}

/*
 * xdp_devmap_xmit(from, to, sent, dropped, error): native mode hands frames over in bulk. It names
 * neither map nor program, so a devmap of somebody else's between our own ends would count here.
 */
int transmit_failed(u64 *arguments)
{
	u32 dropped = arguments[3];
	struct drops *drops;

	if (!dropped || !is_ours(arguments[0]))
		return 0;
	drops = drops_of(word_at(arguments[0] + CONSTANT(DEV_IFINDEX)));
	if (drops)
		__sync_fetch_and_add(&drops->driver_drop, dropped);
	return 0;
}
