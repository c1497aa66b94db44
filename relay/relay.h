/*
 * One side of one move (DESIGN §8): QEMU's socket <-> numbered chunks <-> channels to the other relay,
 * ordered about by the agent over a control socket. Runs until it is told to quit; outlives the agent.
 *
 *     NEW --setup--> RUNNING --both directions delivered--> DONE
 *                       |
 *                       +-- brake, peer gave up, no channel for reconnect_timeout --> FAILED
 *
 * All channels carry chunks at the same time, each the ones that it will deliver first. A new channel over
 * the same network replaces the older one (the peer may have lost that without our noticing); at the source,
 * one of a better rank replaces those of worse ranks, and one of a worse rank that comes later is not used
 * (DESIGN §6). What a lost channel did not deliver goes out again on the others, or on the next that comes.
 */
#ifndef DROVER_RELAY_RELAY_H
#define DROVER_RELAY_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/tls.h"
#include "proto/drover.pb-c.h"
#include "relay/budget.h"
#include "relay/channel.h"
#include "relay/loop.h"
#include "relay/stream.h"

#define RELAY_CHANNELS	   16 /* in authentication or in use */
#define RELAY_NETWORKS	   16 /* with figures of their own */
#define RELAY_PACKET_MAX   65536
#define RELAY_LONELY_US	   (600ull * 1000000) /* idle and without an agent for so long: end */
#define RELAY_RECONNECT_MS 30000
#define RELAY_STATS_MS	   500

enum relay_state { RELAY_NEW, RELAY_RUNNING, RELAY_DONE, RELAY_FAILED };

struct relay {
	int epoll;
	enum relay_state state;
	bool quit;
	struct watch listen, control; /* the agent's listening socket and its present connection */
	uid_t owner;		      /* besides root, who may connect there */

	/* RelaySetup */
	bool destination;
	uint64_t move;
	uint32_t attempt;
	uint8_t key[TLS_KEY_SIZE];
	uint32_t chunk_size;
	uint64_t reconnect_us, stats_us;
	struct tls_psk *tls; /* made when the first encrypted channel comes */

	struct watch qemu;
	bool qemu_ended; /* it will write nothing more */
	bool qemu_full;	 /* its socket takes nothing now */
	bool qemu_deaf;	 /* it reads no more: what comes for it is thrown away */
	bool braked;	 /* its socket was shut down */
	struct tx tx;	 /* from QEMU */
	struct rx rx;	 /* to QEMU */

	struct channel channels[RELAY_CHANNELS];
	struct network networks[RELAY_NETWORKS];
	unsigned channels_known;  /* authenticated */
	unsigned channels_up;	  /* of these, carry chunks */
	uint64_t acked_delivered; /* what our last ACK says */
	bool resumed;		  /* told again on every new channel */
	bool peer_resumed;	  /* source: heard */
	struct budget budget;

	uint64_t turn_us; /* when the present turn began */

	/* Deadlines, 0 = none. */
	uint64_t ack_at, send_at, reconnect_at, stats_at, lonely_at, trim_at;

	/* Figures */
	uint64_t wire_last, wire_last_us, rate;
	uint64_t progress_us, stall_us;
	struct dr_error why; /* FAILED */
};

/* take_listen: a listening SOCK_SEQPACKET unix socket. 0 or a negative code. */
int relay_init(struct relay *relay, int take_listen, struct dr_error *err);
/* Waits for events until the next deadline and handles them. The relay is over when `quit` is set. */
void relay_turn(struct relay *relay);
void relay_fini(struct relay *relay);

/* ---- for control.c ---- */

/* Takes the QEMU socket, also on failure. */
int relay_setup(struct relay *relay, const Drover__RelaySetup *setup, int take_qemu, struct dr_error *err);
void relay_add_channel(struct relay *relay, const Drover__RelayChannel *channel, int take_fd);
/* The channel's network is known to be dead. */
void relay_drop(struct relay *relay, uint32_t id);
void relay_set_budget(struct relay *relay, uint64_t rate);
void relay_set_urgent(struct relay *relay, bool urgent);
void relay_resumed(struct relay *relay);
/* QEMU's socket is shut down at once; the relay has failed. */
void relay_brake(struct relay *relay);
uint64_t relay_wire(const struct relay *relay);
/* Bytes that went over this network. */
uint64_t relay_network_wire(const struct relay *relay, const struct network *network);

/* Tells the agent; text may be NULL. Without an agent it hears the state when it connects. */
void control_event(struct relay *relay, Drover__RelayEvent__Kind kind, uint32_t channel, const char *text);
void control_init(struct relay *relay, int take_listen);
void control_close(struct relay *relay);

/* One line to stderr, with move, attempt and role. (libqb's log opens files, which the sandbox forbids.) */
void relay_log(const struct relay *relay, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
