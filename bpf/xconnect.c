// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The data path of a cross-connect, for XDP and for tc.
 *
 * Everything is keyed by the ifindex a frame came in by:
 *
 *   hit      the frame leaves, byte for byte, by the interface that the map names; the programs
 *            whose names begin with swap_ exchange its source and destination MAC first, and
 *            are put where a link asks for it, in place of the others; those that begin with
 *            tunnel_ are put on tunnels to other hosts, which are never in XDP mode;
 *   miss     the frame is DROPPED (XDP_DROP, TC_ACT_SHOT) and counted as `no_entry`;
 *   closed   what PEERS sends to ifindex 0, which is no interface's, is dropped on purpose and
 *            counted as `one_way`: the link leads the other way only;
 *   unknown  an ingress that was never wired, or has no counters of its own, is a miss like
 *            any other, counted in the element of ifindex 0.
 *
 * The miss action is DROP and nothing else. PASS would hand the frame to the stack of a host
 * that has to be invisible (it would answer ARP), ABORTED would fire a tracepoint per frame.
 *
 * Maps are named by number, here and in compiler.py, and not by bcc's macros: bcc knows no
 * devmap_hash, would create the maps while compiling (so that compiling needs privileges), and
 * would leave its own file descriptors in the code. Whoever loads the code puts its own in.
 *
 * A frame is what the kernel hands to the program: an offloaded 64 KB TCP segment is one frame.
 */
#include <linux/types.h>

enum map {
	ENTRIES = 1,  /* DEVMAP_HASH: ingress ifindex -> egress ifindex, for XDP */
	PEERS = 2,    /* HASH: the same for tc, which cannot redirect by a devmap; or CLOSED */
	COUNTERS = 3, /* PERCPU_HASH: ingress ifindex -> struct counters */
	PLACES = 4,   /* ARRAY: what PEERS has as well, at the place of an ingress */
	TALLIES = 5,  /* PERCPU_ARRAY: struct tally of the ingress whose place it is */
	CLOCK = 6,    /* ARRAY of one struct moment */
};

/*
 * A look into a hash costs a frame some 30 ns, one into an array 1 or 2. So an ingress has a place
 * in two arrays, which it shares with all whose ifindex is the same modulo PLACES_EACH. Each element
 * says whose it is, and the hashes are there for the others.
 */
#define PLACES_EACH	   4096
#define PLACE_OF(ingress)  ((ingress) & (PLACES_EACH - 1))

#define MAP(number) ((void *)bpf_pseudo_fd(1, (number)))

/* In PEERS, in place of the egress. */
#define CLOSED 0

struct counters {
	u64 frames;	 /* handed on, and not in a tally */
	u64 bytes;	 /* of those frames, with all fragments and the Ethernet header */
	u64 no_entry;	 /* frames dropped since there was no entry */
	u64 host_egress; /* frames of this host, dropped on their way out */
	u64 last;	 /* when the last of the frames here came in (CLOCK_MONOTONIC, ns) */
	u64 one_way;	 /* frames dropped since the link leads the other way only */
	u64 filtered;	 /* frames handed on, and dropped by a filter where they leave */
};

/* Of frames that were handed on. */
struct tally {
	u64 frames;
	u64 bytes;
	u64 last; /* in jiffies: an instruction or two, where a clock is a call */
	u64 ingress;
};

/* From linux/pkt_cls.h. */
#define TC_ACT_UNSPEC (-1)
#define TC_ACT_OK     0
#define TC_ACT_SHOT   2

/* From asm-generic/errno-base.h. */
#define EINVAL 22

#define __always_inline inline __attribute__((always_inline))

static __always_inline void *find(void *map, u32 key)
{
	return bpf_map_lookup_elem_((uintptr_t)map, &key);
}

/* NULL only if somebody took element 0 away. */
static __always_inline struct counters *counters_of(u32 ifindex)
{
	struct counters *counters = find(MAP(COUNTERS), ifindex);

	return counters ? counters : find(MAP(COUNTERS), 0);
}

/* Per CPU and with softirqs off, so that no addition has to be atomic. */
static __always_inline void tally(u32 ingress, u64 bytes)
{
	struct tally *tally = find(MAP(TALLIES), PLACE_OF(ingress));
	struct counters *counters;

	if (tally && tally->ingress == ingress) {
		tally->frames++;
		tally->bytes += bytes;
		tally->last = bpf_jiffies64();
		return;
	}
	counters = counters_of(ingress);
	if (!counters)
		return;
	counters->frames++;
	counters->bytes += bytes;
	counters->last = bpf_ktime_get_ns();
}

/*
 * In sums, not branches: clang would join the two by computing the field's address, and pointer
 * arithmetic of that kind is for CAP_PERFMON only, which nothing else here needs.
 */
static __always_inline void tally_dropped(u32 ingress, bool closed)
{
	struct counters *counters = counters_of(ingress);

	if (!counters)
		return;
	counters->no_entry += !closed;
	counters->one_way += closed;
	counters->last = bpf_ktime_get_ns();
}

/* A missing key returns the low two bits of the flags: XDP_DROP is asked for by name. */
static __always_inline int forward(struct xdp_md *ctx, u64 bytes)
{
	u32 ingress = ctx->ingress_ifindex;

	if (bpf_redirect_map(MAP(ENTRIES), ingress, XDP_DROP) == XDP_REDIRECT) {
		tally(ingress, bytes);
		return XDP_REDIRECT;
	}
	u32 *target = find(MAP(PEERS), ingress);

	tally_dropped(ingress, target && *target == CLOSED);
	return XDP_DROP;
}

/*
 * For kernels that know BPF_F_XDP_HAS_FRAGS (5.18). data_end ends the linear part there, so
 * the length has to be asked for; the helper is as old as the flag.
 */
int xdp_frags(struct xdp_md *ctx)
{
	return forward(ctx, bpf_xdp_get_buff_len(ctx));
}

/* For older kernels. Subtracting packet pointers costs CAP_PERFMON at load time. */
int xdp_linear(struct xdp_md *ctx)
{
	return forward(ctx, ctx->data_end - ctx->data);
}

/* Any frame's, also of one to a group. What ends before them, a runt, stays as it is. */
static __always_inline void swap_macs(u16 *mac, void *end)
{
	if ((void *)(mac + 6) > end)
		return;
	for (int i = 0; i < 3; i++) {
		u16 half = mac[i];

		mac[i] = mac[i + 3];
		mac[i + 3] = half;
	}
}

int swap_frags(struct xdp_md *ctx)
{
	swap_macs((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	return forward(ctx, bpf_xdp_get_buff_len(ctx));
}

int swap_linear(struct xdp_md *ctx)
{
	swap_macs((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	return forward(ctx, ctx->data_end - ctx->data);
}

/* What PEERS has for an ingress; whether it has anything. */
static __always_inline bool find_peer(u32 ingress, u32 *peer)
{
	volatile u64 *place = find(MAP(PLACES), PLACE_OF(ingress));
	u64 here = place ? *place : 0; /* target and ingress in one load */
	u32 *there;

	if ((u32)here == ingress) {
		*peer = here >> 32;
		return true;
	}
	there = find(MAP(PEERS), ingress);
	*peer = there ? *there : CLOSED;
	return there;
}

/* clsact ingress, direct action. */
static __always_inline int redirect(struct __sk_buff *skb)
{
	u32 ingress = skb->ifindex, peer;
	bool known = find_peer(ingress, &peer);

	if (peer != CLOSED) {
		tally(ingress, skb->len);
		return bpf_redirect(peer, 0);
	}
	tally_dropped(ingress, known);
	return TC_ACT_SHOT;
}

int ingress(struct __sk_buff *skb)
{
	return redirect(skb);
}

int swap_ingress(struct __sk_buff *skb)
{
	swap_macs((void *)(long)skb->data, (void *)(long)skb->data_end);
	return redirect(skb);
}

/*
 * What the daemons of two hosts say inside a tunnel between these: frames of an Ethernet type for
 * local experiments (IEEE 802, OUI Extended EtherType) that begin with a number of 64 bits, so that
 * a user's own frames of that type cross like all others.
 *
 *   probe  goes back where it came from, byte for byte but for its kind, which is echo then: so it
 *          is known that frames get there and back, also when the daemon there is dead;
 *   other  is handed on to the host, where nothing takes that type but the daemon's socket.
 *
 * None of them is counted.
 */
#define KEEPALIVE_TYPE	0xb688			/* 0x88b6, as it is read from the wire */
#define KEEPALIVE_MAGIC 0x7463656e6e6f6378ULL	/* "xconnect" */

#define KEEPALIVE_AT	14			/* behind the Ethernet header: magic, kind */
#define KIND_AT		(KEEPALIVE_AT + sizeof(u64))

enum kind { PROBE = 1, ECHO = 2 };

/* 0 of all other frames. With a helper, since a driver may leave all of a frame in fragments. */
static __always_inline u8 keepalive_kind(struct __sk_buff *skb)
{
	struct {
		u64 magic;
		u8 kind;
	} __attribute__((packed)) head;

	if (skb->protocol != KEEPALIVE_TYPE || skb->vlan_present ||
	    bpf_skb_load_bytes(skb, KEEPALIVE_AT, &head, sizeof(head)) ||
	    head.magic != KEEPALIVE_MAGIC)
		return 0;
	return head.kind;
}

int tunnel_ingress(struct __sk_buff *skb)
{
	u8 kind = keepalive_kind(skb), echo = ECHO;

	if (!kind)
		return redirect(skb);
	if (kind != PROBE)
		return TC_ACT_OK;
	if (bpf_skb_store_bytes(skb, KIND_AT, &echo, sizeof(echo), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

/*
 * clsact egress of a connected end, direct action. Frames that XDP redirected do not
 * come by here; those that `ingress` redirected do, and still carry the ifindex they came in
 * by. A frame that this host made carries 0 there, one that it routes or bridges carries the
 * interface it came in by, and neither is peered with this end.
 */
static __always_inline bool was_redirected(struct __sk_buff *skb)
{
	u32 peer;

	return find_peer(skb->ingress_ifindex, &peer) && peer == skb->ifindex;
}

static __always_inline int drop_of_host(struct __sk_buff *skb)
{
	struct counters *counters = counters_of(skb->ifindex);

	if (counters)
		counters->host_egress++;
	return TC_ACT_SHOT;
}

/* The filters behind this one have their say on what crosses. */
int egress_drop(struct __sk_buff *skb)
{
	return was_redirected(skb) ? TC_ACT_UNSPEC : drop_of_host(skb);
}

/* An echo leaves by the tunnel that it came in by. */
static __always_inline bool is_own_echo(struct __sk_buff *skb)
{
	return skb->ingress_ifindex == skb->ifindex && keepalive_kind(skb) == ECHO;
}

/*
 * Bytes of a packet that are no payload of TCP: 40 of IPv6, or 20 of IPv4 and 40 of its options,
 * and 60 of TCP with all options. As many as that are rare, so a VLAN tag has room, too.
 */
#define HEADERS	  100
#define LEAST_MTU 576  /* every host takes as much (RFC 791) */
#define MOST_ROOM 4095 /* what the helper takes at once */
#define MOST_CUTS 16   /* gso_size has 16 bits */

/*
 * TCP that waits to be cut into segments (GSO) will be cut into such as the MTU of this interface
 * takes. To grow a frame lowers its gso_size by as much, and to shrink it again leaves that. All
 * but TCP is refused, and stays as it is. Whether the frame is whole.
 *
 * Unrolled: without CAP_PERFMON the verifier also follows each branch that it knows is not taken,
 * and gives up on the loop.
 */
static __always_inline bool cut_to_fit(struct __sk_buff *skb)
{
	u32 mtu = 0, limit;
	long fits = bpf_check_mtu(skb, 0, &mtu, 0, BPF_MTU_CHK_SEGS);

	/* A tag beside the frame is not among what the helper counts. */
	if (mtu < LEAST_MTU || (fits != BPF_MTU_CHK_RET_SEGS_TOOBIG && !skb->vlan_present))
		return true;
	limit = mtu - HEADERS;
#pragma unroll
	for (int i = 0; i < MOST_CUTS && skb->gso_size > limit; i++) {
		u32 room = skb->gso_size - limit;

		if (room > MOST_ROOM)
			room = MOST_ROOM;
		if (bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, 0))
			return true;
		if (bpf_skb_adjust_room(skb, -room, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
			return false;
	}
	return true;
}

/*
 * The same of a tunnel. Segments that are too long for the way would be two fragments each, and TCP
 * had an eighth of its speed (measured); over IPv6 they would be lost.
 */
int tunnel_egress(struct __sk_buff *skb)
{
	if (was_redirected(skb))
		return cut_to_fit(skb) ? TC_ACT_UNSPEC : TC_ACT_SHOT;
	return is_own_echo(skb) ? TC_ACT_UNSPEC : drop_of_host(skb);
}

/* For older kernels: bpf_check_mtu is there since 5.12. */
int tunnel_egress_uncut(struct __sk_buff *skb)
{
	return was_redirected(skb) || is_own_echo(skb) ? TC_ACT_UNSPEC : drop_of_host(skb);
}

/* What user space expects in ENTRIES or in PEERS, one after the other. */
struct expected_entry {
	u32 ingress;
	u32 egress;
};

#define MAX_EXPECTED 256

/*
 * How many of the expected entries, which make up the frame, are in a map. No ingress is 0, so zeros
 * fill the frame up.
 *
 * Unrolled, as in cut_to_fit: without CAP_PERFMON the verifier would go on past the last round, to the
 * end of the longest frame there is, and give up (seen up to Linux 6.12).
 */
static __always_inline int audited(struct xdp_md *ctx, void *map)
{
	struct expected_entry *expected = (void *)(long)ctx->data;
	int there = 0;

	if ((void *)(expected + MAX_EXPECTED) > (void *)(long)ctx->data_end)
		return 0;
#pragma unroll
	for (int i = 0; i < MAX_EXPECTED; i++) {
		u32 *egress = bpf_map_lookup_elem_((uintptr_t)map, &expected[i].ingress);

		there += egress && *egress == expected[i].egress;
	}
	return there;
}

/*
 * Attached nowhere. User space runs them (BPF_PROG_RUN): one system call in place of MAX_EXPECTED,
 * since a devmap has no batch operations, and those of a hash walk through all of its buckets.
 */
int audit(struct xdp_md *ctx)
{
	return audited(ctx, MAP(ENTRIES));
}

int audit_peers(struct xdp_md *ctx)
{
	return audited(ctx, MAP(PEERS));
}

/* What is to become of an ingress in PEERS. */
struct steering {
	u32 ingress;
	u32 peer;
	u32 forget; /* take it out */
};

/*
 * Attached nowhere. User space runs it to change PEERS: what stands at the place of an ingress goes
 * before and comes after, so that whoever looks there first never finds what PEERS had before. An
 * array's elements, moreover, user space cannot change in one store. Returns an errno, or 0.
 *
 * The map gets key and value where they stand in the frame. Copies of both would share eight bytes
 * of the stack, and before Linux 6.13 (b0e66977dc07) the verifier takes that without CAP_PERFMON for an
 * attempt to spoil half of a pointer.
 */
int steer(struct xdp_md *ctx)
{
	struct steering *wanted = (void *)(long)ctx->data;
	uintptr_t peers = (uintptr_t)MAP(PEERS);
	volatile u64 *place;
	long error;

	if ((void *)(wanted + 1) > (void *)(long)ctx->data_end)
		return EINVAL;
	place = find(MAP(PLACES), PLACE_OF(wanted->ingress));
	if (!place)
		return EINVAL;
	*place = 0;
	if (wanted->forget)
		return -bpf_map_delete_elem_(peers, &wanted->ingress);
	error = bpf_map_update_elem_(peers, &wanted->ingress, &wanted->peer, BPF_ANY);
	if (!error && wanted->peer != CLOSED)
		*place = (u64)wanted->peer << 32 | wanted->ingress;
	return -error;
}

/* What jiffies, the clock of the tallies, have to do with user space's. */
struct moment {
	u64 jiffies;
	u64 ns; /* CLOCK_MONOTONIC */
};

/* Attached nowhere. User space runs it to know the moment. */
int moment(void *ctx)
{
	struct moment *now = find(MAP(CLOCK), 0);

	(void)ctx;
	if (!now)
		return EINVAL;
	now->jiffies = bpf_jiffies64();
	now->ns = bpf_ktime_get_ns();
	return 0;
}
