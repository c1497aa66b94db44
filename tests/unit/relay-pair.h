/*
 * Two relays back to back, each in a process of its own, with the test as QEMU on both sides and as both
 * agents. What QEMU writes is a known function of its place in the stream, so a lost, doubled or changed byte
 * shows at once.
 */
#ifndef DROVER_TESTS_RELAY_PAIR_H
#define DROVER_TESTS_RELAY_PAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/tls.h"
#include "proto/drover.pb-c.h"

#define RP_MOVE	   17
#define RP_ATTEMPT 2

#define DEADLINE_US 20000000 /* of everything that is waited for */

typedef Drover__RelayEvent__Kind event_kind;
#define EVENT(name) DROVER__RELAY_EVENT__KIND__##name
#define EVENTS	    9
#define RP_NETWORKS 4

struct side {
	pid_t pid;
	int ctl;  /* the agent's connection */
	int qemu; /* QEMU's end */
	char path[64];
	unsigned seen[EVENTS]; /* events by kind */
	char text[256];	       /* of the last CHANNEL_DOWN or FAILED */
	uint64_t wire, guest;
	struct {
		char name[16];
		uint64_t wire, again;
	} networks[RP_NETWORKS];
	bool gone;
};

struct flow {
	struct side *from, *to;
	uint64_t seed;
	uint64_t total, sent, got;
	bool random_sizes;
};

extern struct side src, dst;
extern const uint8_t rp_key[TLS_KEY_SIZE], rp_other_key[TLS_KEY_SIZE];
/* What rp_start sets up with; rp_setup gives back the defaults. */
extern size_t rp_window;
extern uint32_t rp_chunk_size, rp_reconnect_ms;
/* Of the channels that are given from now on. */
extern const char *rp_network;
extern uint32_t rp_rank;

/* Once per program: a folder for the control sockets. */
int rp_init(void);
void rp_exit(void);
/* Of every test. */
int rp_setup(void **state);
int rp_teardown(void **state);

/* Starts a relay (in its sandbox?) and sets it up. */
void rp_start(struct side *side, Drover__MoveRole role, const uint8_t *with_key, bool sandbox);
void rp_start_both(void);
void rp_stop(struct side *side);

/* The agent: connects to a relay, gives commands, notes events. */
void rp_connect_control(struct side *side);
void rp_simple(struct side *side, Drover__RelayCommand__BodyCase what, uint32_t value);
void rp_budget(struct side *side, uint64_t rate);
void rp_give_channel(struct side *side, int take_fd, uint32_t id, bool encrypt);
void rp_read_events(struct side *side);
/* Fails the test when the event has not come so many times in all within the deadline. */
void rp_want_event(struct side *side, event_kind kind, unsigned times);

/* A TCP connection over the loopback. */
void rp_tcp_pair(int pair[2]);
/* Joins the two relays; returns a descriptor with which rp_cut cuts the channel, or which is just closed. */
int rp_join_relays(uint32_t id, bool encrypt);
/* A reset: what is in the kernel's buffers is lost. */
void rp_cut(int take_handle);

void rp_flows_init(struct flow flows[2], uint64_t forth, uint64_t back, bool random_sizes);
/* QEMU writes a piece, if its socket takes it. */
void rp_feed(struct flow *flow);
/* One step of each, without waiting. */
void rp_step_flows(struct flow *flows, size_t n);
/* Lets the flows run until each has got `until` bytes (at most its total). */
void rp_run_flows(struct flow *flows, size_t n, uint64_t until);
/* Both ends write no more; both relays must finish and QEMU sees the end behind the last byte. */
void rp_finish(void);

#endif
