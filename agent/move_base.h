/*
 * What both move machines share: struct move, its durable phase, its requests to
 * QEMU, its timers. Internal to agent/move*.c.
 */
#ifndef DROVER_AGENT_MOVE_BASE_H
#define DROVER_AGENT_MOVE_BASE_H

#include "agent/move.h"
#include "common/fsm.h"

enum move_timer {
	MOVE_TIMER_PHASE,   /* the deadline of the phase */
	MOVE_TIMER_POLL,    /* query QEMU again */
	MOVE_TIMER_R29,	    /* the VM is stopped: the brake */
	MOVE_TIMER_STOPPED, /* the VM is stopped without token or lease: migrate_cancel */
	MOVE_TIMER_TOKEN,   /* renew the token request */
	MOVE_TIMER_CLEANUP, /* relay, nonces, kill: next try */
	MOVE_TIMER_RELAY,   /* channels: next try; peer resumed: deadline */
	MOVE_TIMER_N,
};

enum move_qemu {
	MOVE_QEMU_UNKNOWN, /* not asked for, or no answer yet */
	MOVE_QEMU_STARTING,
	MOVE_QEMU_UP,
	MOVE_QEMU_DEAD,
};

enum move_relay {
	MOVE_RELAY_NONE,
	MOVE_RELAY_STARTING,
	MOVE_RELAY_UP,
	MOVE_RELAY_QUITTING,
	MOVE_RELAY_DEAD,
};

enum move_answer {
	MOVE_ANSWER_NOT_ASKED,
	MOVE_ANSWER_WAITING,
	MOVE_ANSWER_OK,
};

enum move_channel {
	MOVE_CHANNEL_NONE,
	MOVE_CHANNEL_TRYING,
	MOVE_CHANNEL_UP,
};

/* DESIGN §7.4: which limits QEMU has been given. */
enum move_limit {
	MOVE_LIMIT_UNSET,
	MOVE_LIMIT_COPY,   /* full speed, downtime-limit 1 ms */
	MOVE_LIMIT_HOLD,   /* MOVE_HOLD_BANDWIDTH: waits for the token */
	MOVE_LIMIT_SWITCH, /* full speed, the VM's blackout limit */
};

/* The switch-over token of the link, as the source sees it. */
enum move_token {
	MOVE_TOKEN_NONE,
	MOVE_TOKEN_ASKED,
	MOVE_TOKEN_HELD,
	MOVE_TOKEN_RETURNED, /* did not converge within the time box */
};

/* Whether the destination's relay said that the VM runs there. */
enum move_peer {
	MOVE_PEER_WAITED_FOR,
	MOVE_PEER_RESUMED,
	MOVE_PEER_SILENT,
};

#define MOVE_TOKEN_TIMES 16

#define MOVE_PATHS 32 /* of an order */

struct move_path { /* a network of the order */
	enum move_channel state;
	uint64_t tried_us; /* TRYING: since when */
	uint64_t retry_us; /* NONE: not before */
	uint64_t wait_ms;  /* after the latest failure */
};

struct move_timer_slot {
	struct move *m;
	uint64_t id;
};

struct move {
	struct move_env *env;
	Drover__MoveOrder *order;
	struct fsm fsm; /* the phase */
	struct move_record rec;
	struct move_timer_slot timers[MOVE_TIMER_N];
	uint64_t seq[MOVE_QMP_N]; /* of the request that is under way; 0 = none */
	bool entered_here;	  /* the present phase was entered since the agent started */
	bool restored;		  /* made from the store: nothing that was under way is known */
	bool not_named;		  /* the newest orders do not name this attempt */

	/* What is known of the world. */
	enum move_qemu qemu;
	enum move_relay relay;
	enum move_run run;
	enum move_mig mig;
	enum move_channel channel;
	enum move_answer answers[MOVE_QMP_N]; /* of commands that are sent once */
	enum move_answer checked;
	enum move_answer nonces;
	bool kill_relay;
	bool resumed;		  /* destination, after the commit: RESUME was seen */
	enum move_answer removed; /* the nonces, at the end */
	unsigned remove_tries;

	/* Source. */
	struct move_path paths[MOVE_PATHS];
	uint64_t paths_at;  /* what MOVE_TIMER_RELAY waits for */
	unsigned rank_said; /* the last one that an event named; 0 = none */
	unsigned losses_said;
	char channel_error[128];
	char *networks[MOVE_PATHS]; /* of the channels, in the order; for move_fact */
	uint64_t channel_lost_us;   /* since when no channel is up; 0 = one is */
	uint64_t stopped_us;	    /* since when the VM is stopped; 0 = it runs */
	enum move_limit limit;
	enum move_token token;
	uint32_t token_request;
	uint64_t token_times[MOVE_TOKEN_TIMES]; /* when request n was sent, at n % MOVE_TOKEN_TIMES */
	uint64_t token_since_us;		/* since when the token is asked for or held */
	unsigned token_rounds;
	struct move_figures figures;
	uint64_t figures_us;
	bool figures_held;   /* they came while MOVE_LIMIT_HOLD was on */
	uint64_t guest_rate; /* bytes/s by which `remaining` shrinks */
	enum move_peer peer;
	enum move_answer quit; /* QMP quit is asked for once, then it is killed */
};

/* Tables of the phases: each machine declares its own. */
extern const struct fsm_state move_src_table[];
extern const struct fsm_state move_dst_table[];
#define MOVE_TABLE_SIZE (DROVER__MOVE_PHASE__PHASE_GONE + 1)

uint64_t move_now(const struct move *m);
void move_log(struct move *m, int priority, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void move_say(struct move *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Makes `phase` durable, then enters it, then passes its crash point. 0, or the store's error: then nothing
 * changed and nothing of the new phase may be done.
 */
int move_enter(struct move *m, Drover__MovePhase phase, const char *why);

/* "src-SWITCHING.cont": a named point behind an act of this phase. */
void move_crash_point(struct move *m, const char *act);

/* The first error wins. exit: 6 for refusals, else 1; fatal: no other attempt can help. */
void move_fail(struct move *m, uint32_t exit_code, bool fatal, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
bool move_failed(const struct move *m);

/* Sends it unless one is under way. */
void move_ask(struct move *m, enum move_qmp cmd, const struct move_qmp_args *args);
/* Asks now, unless it asked less than ms ago: for phases that wait until QEMU says something else. */
void move_poll(struct move *m, enum move_qmp cmd, uint64_t ms);
/* Sends a command that is sent once; its answer is found in m->answers. */
void move_once(struct move *m, enum move_qmp cmd, const struct move_qmp_args *args);
/* Answers to earlier questions no longer count: what QEMU does now has to be asked anew. */
void move_forget_answers(struct move *m);

void move_timer_start(struct move *m, enum move_timer timer, uint64_t delay_ms);
void move_timer_stop(struct move *m, enum move_timer timer);
bool move_timer_runs(const struct move *m, enum move_timer timer);

bool move_aborted(const struct move *m);
bool move_committed(const struct move *m);

uint64_t move_blackout_ms(const struct move *m);
/* R29: from STOP on, max(3 × blackout limit, 1 s). */
uint64_t move_stopped_bound_ms(const struct move *m);

/* Both sides' last step: the relay ends (killed after a while); true when it is gone. */
bool move_relay_end(struct move *m);
/* Kills our QEMU after asking whose process it is (R25); true when it is gone. */
bool move_qemu_end(struct move *m);

/* Stores proofs in the record. 0 or -DR_ENOMEM. */
int move_set_proofs(struct move *m, size_t n, Drover__DiskProof **proofs);

#endif
