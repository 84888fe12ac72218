// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What `xconnectd capture` sees a wire through: each program takes a copy of every frame that
 * comes in by one interface, and changes nothing. They stand beside the data path, not in it:
 *
 *   received  at the tracepoint netif_receive_skb, ahead of generic XDP and of clsact: frames of
 *             links in generic and in tc mode, as the driver delivered them (an offloaded segment
 *             whole, a VLAN tag that the driver took out beside it);
 *   entered   at the entry of our own XDP program (fentry): frames that go by native XDP and never
 *             become an skb. The same program runs for generic XDP too: a listener is for one
 *             interface, and attached to one of the two.
 *
 * Both are loaded by who captures and live as long as its file descriptors.
 *
 * Kernel structures have another layout in every kernel. Whoever loads the code fills in where
 * the fields are, from the kernel's own description (BTF), so that it is compiled once for all.
 */
#include <linux/types.h>

enum map {
	RING = 1, /* PERF_EVENT_ARRAY: to user space */
	TALLIES,  /* PERCPU_ARRAY: end -> struct tally */
};

/* Numbers of fields are offsets in bytes. */
enum constant {
	IFINDEX = 1, /* of the interface to listen to, and the inode of its network namespace */
	NAMESPACE,
	END,	 /* which of the ends that are captured that is, from 0 */
	SNAPLEN, /* bytes to keep of a frame, without the Ethernet header for an skb */
	SKB_DEV,
	SKB_LEN,
	SKB_HEAD,
	SKB_MAC_HEADER,
	SKB_TAG,
	SKB_TAG_PROTOCOL,
	SKB_TAGGED, /* 32 bits that hold, under a mask, whether there is a tag in the metadata */
	SKB_TAGGED_MASK,
	DEV_IFINDEX,
	DEV_NET,
	NET_INUM,
	XDP_RXQ,
	XDP_DATA,
	XDP_DATA_END,
	RXQ_DEV,
};

#define MAP(number)	 ((void *)bpf_pseudo_fd(1, (number)))
#define CONSTANT(number) ((u64)bpf_pseudo_fd(15, (number)))

#define __always_inline inline __attribute__((always_inline))

#define ETHERNET_HEADER 14

/* A field of a kernel structure; the verifier knows where it may look. */
#define FIELD(type, from, number) (*(type *)((from) + CONSTANT(number)))

struct tally {
	u64 received;
	u64 lost; /* of those: no room in the ring, or no ring */
};

/* Precedes the frame in the ring. What lies behind `header` continues it, without a gap. */
struct record {
	u64 time;   /* CLOCK_MONOTONIC, ns */
	u32 length; /* of the frame as it came, without a tag that is beside it */
	u16 end;
	u16 tag_protocol; /* in network order; 0: no tag beside the frame */
	u16 tag;
	u8 header[ETHERNET_HEADER]; /* in front of an skb's data, which begins behind it */
};

#define RECORD_HEAD __builtin_offsetof(struct record, header)

static __always_inline bool is_ours(void *dev)
{
	void *net;

	if (FIELD(u32, dev, DEV_IFINDEX) != (u32)CONSTANT(IFINDEX))
		return false;
	net = FIELD(void *, dev, DEV_NET);
	return FIELD(u32, net, NET_INUM) == (u32)CONSTANT(NAMESPACE);
}

/* Both in the upper half of the flags, and not more than there is: the helpers refuse that. */
static __always_inline u64 ring_flags(u64 length)
{
	u64 snaplen = CONSTANT(SNAPLEN);

	return BPF_F_CURRENT_CPU | (length < snaplen ? length : snaplen) << 32;
}

/* Per CPU. A tracing program is not entered again on its CPU while it runs. */
static __always_inline void tally(int failed)
{
	u32 end = CONSTANT(END);
	struct tally *tally = bpf_map_lookup_elem_((uintptr_t)MAP(TALLIES), &end);

	if (!tally)
		return;
	tally->received++;
	tally->lost += !!failed;
}

static __always_inline void read_tag(struct record *record, void *skb)
{
	u32 tagged = 0;

	bpf_probe_read_kernel(&tagged, sizeof(tagged), skb + CONSTANT(SKB_TAGGED));
	if (!(tagged & (u32)CONSTANT(SKB_TAGGED_MASK)))
		return;
	record->tag_protocol = FIELD(u16, skb, SKB_TAG_PROTOCOL);
	record->tag = FIELD(u16, skb, SKB_TAG);
}

static __always_inline int copy_skb(void *skb)
{
	struct record record = {};
	u64 length;
	void *header;

	if (!is_ours(FIELD(void *, skb, SKB_DEV)))
		return 0;
	length = FIELD(u32, skb, SKB_LEN);
	header = FIELD(void *, skb, SKB_HEAD) + FIELD(u16, skb, SKB_MAC_HEADER);
	record.time = bpf_ktime_get_ns();
	record.length = length + ETHERNET_HEADER;
	record.end = CONSTANT(END);
	read_tag(&record, skb);
	bpf_probe_read_kernel(record.header, ETHERNET_HEADER, header);
	tally(bpf_skb_output(skb, MAP(RING), ring_flags(length), &record, sizeof(record)));
	return 0;
}

int received(u64 *arguments)
{
	return copy_skb((void *)arguments[0]);
}

static __always_inline bool comes_by_us(void *xdp)
{
	return is_ours(FIELD(void *, FIELD(void *, xdp, XDP_RXQ), RXQ_DEV));
}

static __always_inline int copy_xdp(void *xdp, u64 length)
{
	struct record record = {};

	record.time = bpf_ktime_get_ns();
	record.length = length;
	record.end = CONSTANT(END);
	tally(bpf_xdp_output(xdp, MAP(RING), ring_flags(length), &record, RECORD_HEAD));
	return 0;
}

/* For kernels that know frames in several buffers (5.18), and those that do not. */
int entered_frags(u64 *arguments)
{
	void *xdp = (void *)arguments[0];

	return comes_by_us(xdp) ? copy_xdp(xdp, bpf_xdp_get_buff_len(xdp)) : 0;
}

int entered_linear(u64 *arguments)
{
	void *xdp = (void *)arguments[0];

	if (!comes_by_us(xdp))
		return 0;
	return copy_xdp(xdp, FIELD(u64, xdp, XDP_DATA_END) - FIELD(u64, xdp, XDP_DATA));
}
