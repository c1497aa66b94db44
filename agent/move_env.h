/*
 * The world of the move machines (agent/move_src.c, move_dst.c). They are pure:
 * whatever they want from QEMU, the relay, the disks or the store they ask for
 * through this vtable, and whatever happens reaches them as a struct move_event
 * through move_event() (agent/move.h). The agent implements it with real parts,
 * tests/sim with fake ones that behave as measured.
 *
 * Rules for whoever implements the vtable:
 *  - A function never calls back into the machine; answers are events from the
 *    loop, later. Exceptions return their result at once: record, the lease
 *    questions, qemu_identity.
 *  - Requests of one machine to one part (QEMU, relay, disks) are carried out in the order of the calls.
 *  - Each asynchronous request is answered at most once. The machine has its own
 *    deadlines: an answer may stay away (QEMU hangs) or come late.
 *  - Strings and messages in events and arguments are borrowed for the call.
 */
#ifndef DROVER_AGENT_MOVE_ENV_H
#define DROVER_AGENT_MOVE_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/env.h"
#include "common/error.h"
#include "proto/drover.pb-c.h"

/* What QEMU is asked for. Each is answered by one MOVE_EV_QMP with the same seq; composites by one for the
 * whole. */
enum move_qmp {
	/* migrate-set-capabilities: events, return-path, pause-before-switchover, late-block-activate; both
	   sides. */
	MOVE_QMP_CAPABILITIES,
	/* migrate-set-parameters: max-bandwidth, downtime-limit; on the destination only announce-rounds=0
	   (R24). */
	MOVE_QMP_PARAMETERS,
	/* The relay's QEMU socket by getfd, then migrate fd: (source) or migrate-incoming fd: (destination).
	 * The agent keeps a dup of that socket for brake(). */
	MOVE_QMP_MIGRATE,
	MOVE_QMP_MIGRATE_CONTINUE, /* {state: pre-switchover} */
	MOVE_QMP_MIGRATE_CANCEL,
	MOVE_QMP_MIGRATE_UNPAUSE, /* migrate-continue {state: cancelling}; refused in any other state */
	MOVE_QMP_CONT, /* only with a valid lease (R7), except on a source that gave no word (R2) */
	MOVE_QMP_QUIT,
	MOVE_QMP_QUERY_STATUS,	/* answer: run */
	MOVE_QMP_QUERY_MIGRATE, /* answer: mig and figures */
	MOVE_QMP_ANNOUNCE,	/* announce-self */
	MOVE_QMP_N,
};

/* QEMU's run state, as query-status says it. */
enum move_run {
	MOVE_RUN_UNKNOWN, /* no answer yet */
	MOVE_RUN_RUNNING,
	MOVE_RUN_PAUSED, /* also prelaunch */
	MOVE_RUN_INMIGRATE,
	MOVE_RUN_FINISH_MIGRATE,
	MOVE_RUN_POSTMIGRATE,
	MOVE_RUN_OTHER, /* io-error, guest-panicked, shutdown, ...: see text */
};

/* Status of query-migrate and of the MIGRATION event. */
enum move_mig {
	MOVE_MIG_UNKNOWN, /* no answer yet */
	MOVE_MIG_NONE,	  /* no migration since QEMU started */
	MOVE_MIG_SETUP,	  /* also wait-unplug */
	MOVE_MIG_ACTIVE,
	MOVE_MIG_PRE_SWITCHOVER,
	MOVE_MIG_DEVICE,
	MOVE_MIG_COMPLETED,
	MOVE_MIG_FAILED,
	MOVE_MIG_CANCELLING,
	MOVE_MIG_CANCELLED,
	MOVE_MIG_OTHER,
};

/* query-migrate's figures. Bytes of guest memory unless said otherwise. */
struct move_figures {
	uint64_t total;
	uint64_t remaining;
	uint64_t transferred; /* bytes that QEMU put into the stream */
	uint64_t dirty_rate;  /* bytes/s: dirty-pages-rate × page size */
	uint64_t rate;	      /* bytes/s: mbps / 8 × 10⁶ */
	uint32_t passes;      /* dirty-sync-count */
	uint64_t total_time_ms;
};

/* qemu_identity(): is the process that we would kill the one that we started (R25)? */
enum move_identity {
	MOVE_QEMU_OURS,	 /* pidfd, start time and (where QMP answers) UUID agree */
	MOVE_QEMU_GONE,	 /* no such process */
	MOVE_QEMU_OTHER, /* the pid now belongs to somebody else */
};

struct move_qmp_args {
	uint64_t max_bandwidth;	    /* bytes/s; 0 = unlimited. MOVE_QMP_PARAMETERS */
	uint64_t downtime_limit_ms; /* MOVE_QMP_PARAMETERS */
};

/* What the machine wants to find again after a restart of the agent. */
struct move_record {
	Drover__MovePhase phase;
	char error[DR_ERROR_TEXT]; /* "" = none; the first error wins */
	uint32_t error_exit;
	bool error_fatal;
	bool committed;		 /* destination: MoveCommit was seen; source: likewise */
	bool stopped;		 /* source: STOP was seen (announce after an abort, R24) */
	bool released;		 /* source: it gave its word; from then on `cont` needs a lease (R2, R7) */
	Drover__MoveStats stats; /* without its networks */
	size_t n_proofs;
	Drover__DiskProof **proofs;
};

struct move_env {
	void *impl;
	struct env *env; /* clock, timers, random */

	/* ---- QEMU. Source: the running VM. Destination: one that the machine starts. */

	/* Source, and both after a restart: connect to the VM's QEMU. Answer: MOVE_EV_QEMU_UP or
	 * MOVE_EV_QEMU_EXITED (it is not there). If it is up already, MOVE_EV_QEMU_UP comes again. */
	void (*qemu_attach)(struct move_env *me);
	/* Destination: start it from launch record and spec of the order, `-S -incoming defer`.
	 * Answer: MOVE_EV_QEMU_UP, or MOVE_EV_QEMU_EXITED with text. Durable note of pid and start time
	 * before UP. */
	void (*qemu_spawn)(struct move_env *me);
	/* OURS also while a spawn is under way, and for one that a crash left without its note (found by its
	 * scope). */
	enum move_identity (*qemu_identity)(struct move_env *me);
	/* SIGKILL by pidfd; a spawn that is under way is called off. Answer: MOVE_EV_QEMU_EXITED, also if it
	 * is gone already; none when the kill failed: the machine asks again. */
	void (*qemu_kill)(struct move_env *me);
	/* Returns seq > 0, growing. args: NULL except for MOVE_QMP_PARAMETERS. */
	uint64_t (*qmp)(struct move_env *me, enum move_qmp cmd, const struct move_qmp_args *args);
	/* R29: shutdown() our dup of the migration socket, OOB yank, RelayCommand.brake: whatever of it is
	 * possible. */
	void (*brake)(struct move_env *me);

	/* ---- relay */

	/* Start it (order: key, role). Answer: MOVE_EV_RELAY_UP or MOVE_EV_RELAY_GONE. */
	void (*relay_start)(struct move_env *me);
	/* After a restart: connect to its control socket. Answer: MOVE_EV_RELAY_UP or MOVE_EV_RELAY_GONE. */
	void (*relay_attach)(struct move_env *me);
	/* Source: TCP connect over order.paths[path] to order.dst_port, preamble, RelayChannel. Has its own
	 * deadline (5 s). Answer: MOVE_EV_CHANNEL_UP or MOVE_EV_CHANNEL_FAILED with text, both with `path`.
	 */
	void (*relay_connect)(struct move_env *me, unsigned path);
	void (*relay_urgent)(struct move_env *me);  /* RelayCommand.urgent; no answer */
	void (*relay_resumed)(struct move_env *me); /* destination: RelayCommand.resumed; no answer */
	/* RelayCommand.quit (what was sent before is delivered first), or the kill if `kill`.
	 * Answer: MOVE_EV_RELAY_GONE, also if it is gone already. */
	void (*relay_quit)(struct move_env *me, bool kill);

	/* ---- disks and checks */

	/* Source: a random nonce beside each writable disk, `.drover-nonce-MOVE-ATTEMPT-I`; WWIDs of block
	 * devices. Replaces old files of the same name. Answer: MOVE_EV_NONCES_WRITTEN with proofs. */
	void (*nonces_write)(struct move_env *me);
	/* Destination: compare order.proofs with what lies beside its own paths (R26). Answer:
	 * MOVE_EV_NONCES_CHECKED. */
	void (*nonces_check)(struct move_env *me);
	/* Source: remove the files (their names follow from the order). Answer: MOVE_EV_NONCES_REMOVED; ok or
	 * not. */
	void (*nonces_remove)(struct move_env *me);
	/* Destination: memory, machine type, CPU, bridges against the order. Answer: MOVE_EV_CHECKED. */
	void (*check)(struct move_env *me);

	/* ---- agent */

	/* Durable when it returns 0 (the store's fsync done), together with the order as the machine has it
	 * (move_order()). In the same transaction: role destination, phase DST_CONTINUING: the VM becomes
	 * this host's, with generation + 1; role source, phase SRC_FINISHING: the VM is no longer this
	 * host's. */
	int (*record)(struct move_env *me, const struct move_record *rec);
	/* Age of the newest lease, counted from when its request was sent (R8); UINT64_MAX without one. */
	uint64_t (*lease_age_us)(struct move_env *me);
	bool (*lease_valid)(struct move_env *me);
	/* The fact changed: report soon (coalesced per loop turn). */
	void (*dirty)(struct move_env *me);
	/* For an operator: MoveFact.events of the next report. */
	void (*event)(struct move_env *me, const char *text);
	/* One log line; priority as in syslog.h. The implementation puts vm, move and attempt in front. */
	void (*log)(struct move_env *me, int priority, const char *text);
	/* Named point for the fault tests: may end the process (lab: DROVER_CRASH_POINT) or note it
	 * (simulator). Names: "src-SWITCHING" directly after the phase was recorded, "src-SWITCHING.cont" and
	 * the like after an act. */
	void (*crash_point)(struct move_env *me, const char *name);
};

enum move_ev {
	/* Once, first: the machine begins, or goes on after a restart of the agent. Its orders may be older
	   than that. */
	MOVE_EV_START = 1, /* an event without a type is none */
	/* The coordinator's order for this attempt, whenever it came anew (order). Floors (R7) are checked
	   before. */
	MOVE_EV_ORDER,
	/* A newer AgentOrders does not name this attempt any more. */
	MOVE_EV_ORDER_LOST,
	/* The lease was renewed. */
	MOVE_EV_LEASE,

	MOVE_EV_QEMU_UP,     /* monitor connected, capabilities negotiated (OOB monitor too) */
	MOVE_EV_QEMU_EXITED, /* text: why, if known */
	MOVE_EV_QMP,	     /* qmp, seq, ok, text (error); run or mig + figures for queries */
	MOVE_EV_MIGRATION,   /* QMP event MIGRATION: mig */
	MOVE_EV_STOP,	     /* QMP events, at_us */
	MOVE_EV_RESUME,

	MOVE_EV_RELAY_UP,	/* ready; source after a restart: channels, a bit for each path that is up */
	MOVE_EV_CHANNEL_UP,	/* path */
	MOVE_EV_CHANNEL_DOWN,	/* path, text: it was up; others may be */
	MOVE_EV_CHANNEL_FAILED, /* path, text: the connect or its authentication failed */
	MOVE_EV_RELAY_NEED_CHANNEL, /* every channel is gone */
	MOVE_EV_RELAY_STATS,	    /* bytes_wire, wire_rate */
	MOVE_EV_RELAY_DONE,	    /* STREAM_DONE */
	MOVE_EV_RELAY_FAILED,	    /* text */
	MOVE_EV_RELAY_PEER_RESUMED, /* source: the destination's VM runs; at_us */
	MOVE_EV_RELAY_GONE,	    /* its process ended */

	MOVE_EV_NONCES_WRITTEN, /* ok, proofs | exit, text */
	MOVE_EV_NONCES_CHECKED, /* ok | exit, text */
	MOVE_EV_NONCES_REMOVED,
	MOVE_EV_CHECKED, /* ok | exit, text */

	MOVE_EV_TIMER, /* internal: from the machine's own timers */
};

struct move_event {
	enum move_ev type;
	bool ok;
	uint32_t exit;	  /* of a failed check: 6 for a refusal, else 1 */
	const char *text; /* NULL or words */
	const Drover__MoveOrder *order;
	enum move_qmp qmp;
	uint64_t seq;
	enum move_run run;
	enum move_mig mig;
	struct move_figures figures;
	uint64_t at_us; /* 0 = now; else when QEMU or the relay said so, on env's clock */
	unsigned path;
	unsigned channels;
	uint64_t bytes_wire;
	uint64_t wire_rate;
	size_t n_proofs;
	Drover__DiskProof **proofs;
	unsigned timer;
};

#endif
