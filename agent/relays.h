/*
 * drover-relay as the agent sees it: one process per move and side, started in its
 * own scope, surviving the agent, spoken to over a unix socket that carries one
 * packed drover.Msg per packet. The agent makes TCP connections and hands them over.
 */
#ifndef DROVER_AGENT_RELAYS_H
#define DROVER_AGENT_RELAYS_H

#include "agent/agent.h"
#include "agent/proc.h"

#define RELAY_SYN_US	   1500000u		/* TCP connect: a healed network is to be found soon */
#define RELAY_CONNECT_US   5000000u		/* preamble, authentication of one channel */
#define RELAY_PATHS	   32			/* of an order */
#define RELAY_START_US	   5000000u		/* from the spawn to READY */
#define RELAY_QUIT_US	   3000000u		/* from quit to SIGKILL */
#define RELAY_DEAD_MS	   6000u		/* TCP_USER_TIMEOUT of channels, until the relay has them */
#define RELAY_CHUNK	   (512u << 10)		/* bytes of QEMU's stream in one chunk */
#define RELAY_WINDOW	   (UINT64_C(64) << 20) /* unacknowledged bytes at most */
#define RELAY_RECONNECT_MS 30000u		/* how long a copy waits without any channel */
#define RELAY_STATS_MS	   250u
#define RELAY_QUEUE	   64 /* commands that wait for a relay that does not read */

/*
 * First bytes of a channel, so that the agent at the other end knows whose it is:
 * magic, move, attempt, channel id (big endian), zeros.
 */
#define RELAY_PREAMBLE	     32
#define RELAY_PREAMBLE_MAGIC "DRVRELAY"

struct preamble {
	uint64_t move;
	uint32_t attempt;
	uint32_t channel;
};

void preamble_write(uint8_t bytes[RELAY_PREAMBLE], const struct preamble *p);
/* -DR_EPROTO: not one. */
int preamble_read(const uint8_t bytes[RELAY_PREAMBLE], struct preamble *p);

/* Is it a kind of event of this version? protobuf passes any number. */
bool relay_kind_known(Drover__RelayEvent__Kind kind);

struct relay;

struct relay_ops {
	/* The order of its attempt, as it is now. */
	const Drover__MoveOrder *(*order)(void *data);
	/* It is set up (after a start), or it answered (after relay_attach); channels: a bit for each path
	 * that is up. */
	void (*on_up)(unsigned int channels, void *data);
	/* Anything but READY. ev is borrowed. path: of the channel that CHANNEL_UP and CHANNEL_DOWN are
	 * about. */
	void (*on_event)(const Drover__RelayEvent *ev, unsigned int path, void *data);
	/* Source: the channel could not be made or authenticated. */
	void (*on_channel_failed)(unsigned int path, const char *why, void *data);
	/* The process ended; the relay may be freed. */
	void (*on_gone)(const char *why, void *data);
};

/* No process yet. */
struct relay *relay_new(struct agent *a, const Drover__MoveOrder *order, const struct relay_ops *ops,
			void *data);
/* The process goes on. */
void relay_free(struct relay *r);

/* The move is forgotten: its socket and log, too. */
void relay_remove_files(const struct agent *a, uint64_t move, uint32_t attempt, Drover__MoveRole role);

/*
 * Starts the process and sets it up. record is called with the process before it execs. *qemu_fd becomes
 * QEMU's end of the stream, the caller's. 0: on_up or on_gone follows.
 */
int relay_start(struct relay *r, int (*record)(const struct proc *proc, void *data), void *data, int *qemu_fd,
		struct dr_error *err);

/* After a restart of the agent. 0: on_up or on_gone follows. -DR_ENOENT: it is gone; -DR_EIO: cannot be told.
 */
int relay_attach(struct relay *r, pid_t pid, uint64_t start_time);

bool relay_running(const struct relay *r);

/* Source: makes a channel over order->paths[path]. Answer: CHANNEL_UP or on_channel_failed. */
void relay_connect(struct relay *r, unsigned int path);

/* Destination: an accepted socket (taken) whose preamble named this relay. */
void relay_accept(struct relay *r, const struct preamble *p, const char *local_address, int take_fd);

void relay_set_budget(struct relay *r, uint64_t bytes_per_s);

enum relay_word { RELAY_BRAKE, RELAY_RESUMED, RELAY_QUIT, RELAY_QUERY, RELAY_URGENT };
void relay_say(struct relay *r, enum relay_word word);

/* quit, and SIGKILL when it does not end in time or at once. on_gone follows. -DR_ENOENT: no process. */
int relay_end(struct relay *r, bool kill);

/* The channels over this path have lost their network's carrier. */
void relay_drop_path(struct relay *r, size_t path);

/* What its channels have done, by network, as it said last; the pointers are the relay's. Returns how many.
 */
size_t relay_figures(const struct relay *r, Drover__RelayNetwork ***figures);

/* Is a channel over this path of the order up? */
bool relay_path_up(const struct relay *r, size_t path);

/* The listener for destination channels. NULL and *err when the port is taken. */
struct acceptor *acceptor_new(struct agent *a, struct dr_error *err);
void acceptor_free(struct acceptor *acc);

#endif
