// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The last door before the host's own IP stack: netfilter's prerouting, for IPv4 and IPv6. Nothing
 * that comes in by an end gets here but what the kernel let pass all our hooks, whose frames carry
 * marks that skip them (docs/safety.md). It is dropped and counted.
 */
#include <linux/types.h>

enum map {
	GUARDED = 1, /* HASH: ifindex of an end -> packets that got here */
};

/* Numbers of fields are offsets in bytes: they differ from kernel to kernel. */
enum constant {
	STATE_IN = 1, /* the interface by which the packet came in */
	DEV_IFINDEX,
};

#define MAP(number)	 ((void *)bpf_pseudo_fd(1, (number)))
#define CONSTANT(number) ((u64)bpf_pseudo_fd(15, (number)))

/* From linux/netfilter.h. */
#define NF_DROP	  0
#define NF_ACCEPT 1

/* The context is struct bpf_nf_ctx: the hook's state, then the packet. */
int guard(u64 *context)
{
	u64 device = 0, *passed;
	u32 ifindex = 0;

	bpf_probe_read_kernel(&device, sizeof(device), (void *)(context[0] + CONSTANT(STATE_IN)));
	bpf_probe_read_kernel(&ifindex, sizeof(ifindex), (void *)(device + CONSTANT(DEV_IFINDEX)));
	passed = bpf_map_lookup_elem_((uintptr_t)MAP(GUARDED), &ifindex);
	if (!passed)
		return NF_ACCEPT;
	__sync_fetch_and_add(passed, 1);
	return NF_DROP;
}
