// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The doors between our ends and the host's own IP stack, for IPv4 and IPv6: netfilter's prerouting
 * in, its local output and forwarding out. What gets there is dropped and counted.
 *
 * In: nothing that comes in by an end, but what the kernel let pass all our hooks, whose frames
 * carry marks that skip them (docs/safety.md).
 *
 * Out: what the host sends into an end would be dropped at clsact egress all the same. Of
 * multicast and broadcast the kernel makes a copy before that, which it receives by the end
 * (dev_loopback_xmit): generic XDP cannot tell it from a frame of the wire's.
 */
#include <linux/types.h>

enum map {
	GUARDED = 1, /* HASH: ifindex of an end -> struct stopped */
};

struct stopped {
	u64 in;	 /* packets that came in by the end and got as far as the host */
	u64 out; /* packets of the host's, on their way to the end */
};

/* Numbers of fields are offsets in bytes: they differ from kernel to kernel. */
enum constant {
	STATE_IN = 1, /* the interface by which the packet came in; none if the host made it */
	STATE_OUT,    /* by which it is to leave; none before it is routed */
	DEV_IFINDEX,
};

#define MAP(number)	 ((void *)bpf_pseudo_fd(1, (number)))
#define CONSTANT(number) ((u64)bpf_pseudo_fd(15, (number)))

/* From linux/netfilter.h. */
#define NF_DROP	  0
#define NF_ACCEPT 1

static u64 device_at(u64 state, u64 offset)
{
	u64 device = 0;

	bpf_probe_read_kernel(&device, sizeof(device), (void *)(state + offset));
	return device;
}

/* The context is struct bpf_nf_ctx: the hook's state, then the packet. */
int guard(u64 *context)
{
	u64 state = context[0], out = device_at(state, CONSTANT(STATE_OUT));
	u64 device = out ? out : device_at(state, CONSTANT(STATE_IN));
	struct stopped *stopped;
	u32 ifindex = 0;

	bpf_probe_read_kernel(&ifindex, sizeof(ifindex), (void *)(device + CONSTANT(DEV_IFINDEX)));
	stopped = bpf_map_lookup_elem_((uintptr_t)MAP(GUARDED), &ifindex);
	if (!stopped)
		return NF_ACCEPT;
	__sync_fetch_and_add(out ? &stopped->out : &stopped->in, 1);
	return NF_DROP;
}
