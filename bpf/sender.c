// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Sends a frame as a tc redirect would. Attached nowhere: `xconnectd test` runs it (BPF_PROG_RUN)
 * on a frame, in the network namespace of the interface. The copy that leaves carries the
 * kernel's mark `redirected`, by which generic XDP is spared it; a veth leaves the mark on.
 */
#include <linux/types.h>

enum constant {
	TARGET = 1, /* ifindex of the interface to send by */
};

#define CONSTANT(number) ((u64)bpf_pseudo_fd(15, (number)))

/* Returns 0 for a frame that was sent. */
int send_redirected(struct __sk_buff *skb)
{
	return bpf_clone_redirect(skb, CONSTANT(TARGET), 0);
}
